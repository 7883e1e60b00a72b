"""A folder of Parquet parts, newest row of a key winning, merged into few of them: files that never change.

A part is named by the writes it holds, ``part-000001-000007.parquet``. Each write makes a part of its own; merging
writes a part for a range of them and then deletes those, so a folder that was left at any moment has one reading: a
part whose range lies within another's is a leftover, and of rows with the same key the one in the latest part counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...durable import put
from ..arrow import arrow
from ..rows import KEY

_NAME = re.compile(r"part-(\d{6,})-(\d{6,})\.parquet")
_UNFINISHED = ".unfinished"
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One file: the writes `first` to `last`."""

    first: int
    last: int

    @property
    def name(self) -> str:
        return f"part-{self.first:06d}-{self.last:06d}.parquet"


def parts_in(folder: Path) -> list[Part]:
    """The parts of a folder in order of writing. Deletes what a killed process left: unfinished and merged files."""
    found: list[Part] = []
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match:
            found.append(Part(int(match[1]), int(match[2])))
        elif path.name.startswith("part-") and path.name.endswith(_UNFINISHED):
            path.unlink()
    kept: list[Part] = []
    for part in sorted(found, key=lambda each: (each.first, -each.last)):
        if kept and part.last <= kept[-1].last:
            (folder / part.name).unlink()
        else:
            kept.append(part)
    return kept


def write_part(folder: Path, part: Part, tables: Iterator[Any], schema: Any) -> int:
    """Write a part; it is there whole, and on disk, or not at all. Returns its rows; with none there is no file."""
    _, pq = arrow()
    unfinished = folder / (part.name + _UNFINISHED)
    rows = 0
    with pq.ParquetWriter(unfinished, schema) as writer:
        for table in tables:
            if table.num_rows:  # an empty row group has no statistics
                rows += table.num_rows
                writer.write_table(table)
    if not rows:
        unfinished.unlink()
        return 0
    put(unfinished, folder / part.name)
    return rows


def live_rows(folder: Path, parts: Sequence[Part]) -> list[NDArray[np.bool_]]:
    """For each part, which of its rows are the newest of their key. Takes 40 bytes of memory a row while it runs."""
    return newest([digests_in(folder / part.name) for part in parts])


def newest(digests: Sequence[NDArray[Any]]) -> list[NDArray[np.bool_]]:
    """Which rows are the newest of their key: of several parts, the latest last, of each the digests of its keys."""
    if not digests:
        return []
    every = np.concatenate(digests)
    age = np.repeat(np.arange(len(digests), 0, -1), [len(each) for each in digests])
    order = np.lexsort((age, every["low"], every["high"]))
    ordered = every[order]
    first = np.ones(len(every), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    live = np.empty(len(every), np.bool_)
    live[order] = first
    return np.split(live, np.cumsum([len(each) for each in digests])[:-1])


def digests_in(file: Any) -> NDArray[Any]:
    """16 bytes for each key of a Parquet file: its path, or what is open."""
    _, pq = arrow()
    with pq.ParquetFile(file) as opened:
        batches = opened.iter_batches(_ROWS_AT_ONCE, columns=[KEY])
        return np.concatenate([digests_of(()), *(digests_of(batch.column(0)) for batch in batches)])


def digests_of(keys: Any) -> NDArray[Any]:
    """16 bytes for each key of an Arrow column."""
    hashes = b"".join(hashlib.blake2b(key.as_py().encode(), digest_size=16).digest() for key in keys)
    return np.frombuffer(hashes, [("high", "<u8"), ("low", "<u8")])


def merge(folder: Path, parts: Sequence[Part], part_bytes: int) -> list[Part]:
    """Make few parts of about `part_bytes` of many, without rows that were written over. Returns what there is then."""
    live = dict(zip(parts, live_rows(folder, parts), strict=True))
    merged: list[Part] = []
    for group in _groups(folder, parts, part_bytes):
        if len(group) == 1 and live[group[0]].all():
            merged.append(group[0])
            continue
        combined = Part(group[0].first, group[-1].last)
        schema = _schema(folder / group[0].name)
        rows = write_part(folder, combined, _live_tables(folder, group, live), schema)
        merged += [combined] if rows else []
        for part in group:
            if part != combined or not rows:
                (folder / part.name).unlink()
    return merged


def _groups(folder: Path, parts: Sequence[Part], part_bytes: int) -> Iterator[list[Part]]:
    group: list[Part] = []
    size = 0
    for part in parts:
        own = (folder / part.name).stat().st_size
        if group and size + own > part_bytes:
            yield group
            group, size = [], 0
        group.append(part)
        size += own
    if group:
        yield group


def _live_tables(folder: Path, group: Sequence[Part], live: dict[Part, NDArray[np.bool_]]) -> Iterator[Any]:
    pa, pq = arrow()
    for part in group:
        first = 0
        with pq.ParquetFile(folder / part.name) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                mask = live[part][first : first + batch.num_rows]
                first += batch.num_rows
                yield pa.Table.from_batches([batch]).filter(pa.array(mask))


def _schema(path: Path) -> Any:
    _, pq = arrow()
    return pq.read_schema(path)
