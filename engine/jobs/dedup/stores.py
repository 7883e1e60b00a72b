"""Near-duplicates among the rows of a store, by the vectors that it holds; and what becomes of those rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ....errors import ConfigError
from ....registry import scheme_of
from ....sinks import RowBatch, Searchable, Sink
from ....sinks.registry import SINKS
from ....sinks.rows import VECTOR
from ....sinks.signatures import Signatures, SignatureWriter, parts_in
from ...config.dedup import DedupConfig
from ...dedup import Decision, Rule
from ...sources.frame_keys import frame_key
from ...sources.registry import SOURCES
from ...sources.tables.spec import OPTIONS

FLAG: Final = "duplicate_of"
"""The column that names whose duplicate a row is."""

_LITE: Final = ".db"

_ROWS: Final = 1000
_BYTES: Final = 8 << 20
"""Rows, and bytes of their vectors, that are looked at together before they are deleted."""


def is_store(spec: str) -> bool:
    """Whether a source is a store of vectors and no source of pictures: ``photos.db``, ``http://host:19530``,
    ``parquet:DIR``, ``npy:DIR``, ``lance:DIR`` or one of an installed package, with settings behind it or without.
    Tables of pictures are none: ``parquet:part-*.parquet``, and those whose columns are named (``?image=...``)."""
    address, _, said = spec.partition("?")
    scheme = scheme_of(address)
    if scheme in ("http", "https"):
        return not urlsplit(address).path.strip("/")
    if scheme is None:
        return address.endswith(_LITE)
    if scheme in ("parquet", "lance"):
        return said.partition("=")[0] not in OPTIONS and not _is_file(address)
    return SOURCES.problem(scheme) is not None and SINKS.problem(scheme) is None


def _is_file(address: str) -> bool:
    return address.endswith(".parquet") and not Path(address.removeprefix("parquet:")).is_dir()


def check_rule(rule: Rule, where: str) -> None:
    """Refuse a rule that asks for more than a store holds.

    Raises:
        ConfigError: it does; says which is possible.
    """
    if rule.needs_pictures:
        raise ConfigError(
            f"rule: {rule.name} looks at pictures, and {where} holds vectors: possible is vectors:COSINE, as in --rule"
            " vectors:0.97. For default and strict give the pictures themselves (penstock dedup FOLDER)"
        )


def check_disposal(config: DedupConfig, sink: Sink) -> None:
    """Refuse to delete or flag rows where the store cannot, before anything is begun.

    Raises:
        ConfigError: it cannot.
    """
    if config.delete and (sink.deleter() is None or sink.reader() is None):
        raise ConfigError(f"delete: {sink.uri} is never changed: make it anew without the keys of the list")
    if config.flag and not sink.rewrites:
        raise ConfigError(f"flag: {sink.uri} has no room for a column more; the list has the same (--to)")


def scan_into(folder: Path, sink: Sink, on_rows: Callable[[int], None] = lambda _: None) -> None:
    """Signatures of all rows of a store, in place of those that lie there.

    Args:
        folder: where they go.
        sink: open.
        on_rows: hears how many have been read; may raise to end it.

    Raises:
        ConfigError: it cannot be read back.
        SinkError: it cannot be asked.
    """
    scanner = sink.scanner()
    if scanner is None:
        raise ConfigError(f"{sink.uri} cannot be read back{sink.next_step and f'; {sink.next_step}'}")
    writer, total = SignatureWriter(folder), 0
    for part in parts_in(folder):
        part.unlink()
    for number, rows in enumerate(scanner.scan()):
        sides = [min(each.get("width") or 0, each.get("height") or 0) for each in rows.columns]
        writer.write(f"{number:012}", Signatures.of(rows.keys, rows.vectors, short_side=np.array(sides, np.int32)))
        total += len(rows)
        on_rows(total)


def paths_in(sink: Sink, keys: Sequence[str]) -> dict[str, str]:
    """The paths of rows by key, of those that have one; of a frame of a video also its time."""
    reader = sink.reader()
    found = {} if reader is None else reader.get(keys)
    return {key: _place(columns) for key, columns in found.items() if columns.get("path")}


def _place(columns: Mapping[str, Any]) -> str:
    at = columns.get("frame_pts_us")
    return str(columns["path"]) if at is None else frame_key(str(columns["path"]), at)


def delete_rows(sink: Sink, decision: Decision) -> int:
    """Take the rows that go out of a store: those that are as they were judged, and whose keeper is.

    Returns:
        How many were left, because they or their keepers have changed or gone since they were read.
    """
    reader, deleter = sink.reader(), sink.deleter()
    assert reader is not None
    assert deleter is not None
    items = np.flatnonzero(decision.outcome.keeper >= 0)
    step = min(_ROWS, max(1, _BYTES // max(1, 4 * decision.signatures.vector.shape[1])))
    left = 0
    for first in range(0, len(items), step):
        some = items[first : first + step]
        keepers = decision.outcome.keeper[some]
        same = _unchanged(reader, decision.signatures, np.unique([some, keepers]))
        gone = some[np.isin(some, same) & np.isin(keepers, same)]
        deleter.delete([decision.signatures.keys.text(item) for item in gone.tolist()])
        left += len(some) - len(gone)
    sink.finish()
    return left


def _unchanged(reader: Searchable, signatures: Signatures, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of some items, ascending, that a store still has with the same vectors."""
    keys = [signatures.keys.text(item) for item in items.tolist()]
    found = reader.get(keys, vectors=True)
    there = [row for row, key in enumerate(keys) if key in found]
    if not there:
        return items[:0]
    now = Signatures.of([keys[row] for row in there], np.stack([found[keys[row]][VECTOR] for row in there]))
    items = items[there]
    return np.asarray(items[(now.vector == signatures.vector[items]).all(1)], np.int64)


def flag_rows(sink: Sink, decision: Decision) -> int:
    """Write into each row that goes whose duplicate it is; and take that from rows that stay.

    Returns:
        How many rows the store did not take with it.
    """
    scanner = sink.scanner()
    assert scanner is not None
    duplicates = {each.key: each.duplicate_of for each in decision.duplicates()}
    left = 0
    for rows in scanner.scan():
        changed = [
            row for row, key in enumerate(rows.keys) if rows.columns[row].get(FLAG, "") != duplicates.get(key, "")
        ]
        if changed:
            columns: list[dict[str, Any]] = [
                {**rows.columns[row], FLAG: duplicates.get(rows.keys[row], "")} for row in changed
            ]
            written = sink.write(RowBatch([rows.keys[row] for row in changed], rows.vectors[changed], columns))
            left += len(written.refused)
    return left
