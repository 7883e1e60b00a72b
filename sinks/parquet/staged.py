"""Rows that a job has written and not shown: a file for each write, and the parts that are made of them in order.

A write is a Parquet file in the job's staging folder, named by its turn. Publishing sorts all of them by ordinal, drops
rows that were written over, and cuts the result into parts of a size that depends on the rows alone: a job that was
killed and went on makes the same parts as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..arrow import arrow
from ..rows import KEY, VECTOR
from .manifest import ShownPart
from .parts import digests_in, digests_of, newest
from .place import Place, Sealed, staging
from .table import FIRST, LAST, ORDINAL, row_bytes, write_options

_NAME: Final = re.compile(r"rows-(\d{8,})-[0-9a-f]{8}\.parquet")
SEALED: Final = "sealed.json"
"""What parts are made already, in the staging folder."""

_TABLES: Final = 4
"""Files that are kept in memory while parts are made: rows come nearly in order, so that few are open at a time."""

_GROUP_BYTES: Final = 16 * 2**20
"""Of a row group, before compression: what is in memory at once, here and where it is read."""


@dataclass(frozen=True, slots=True)
class Positions:
    """The rows that are to be shown, by key, and where each stands now: what else was written is left out.

    Attributes:
        by_key: the ordinal of each.
        columns: those that hold it, as int64.
    """

    by_key: Mapping[str, int]
    columns: Sequence[str] = (ORDINAL,)

    def of(self, keys: Any) -> NDArray[np.int64]:
        """Of an Arrow column of keys; -1 of those that are left out."""
        return np.array([self.by_key.get(key, -1) for key in keys.to_pylist()], np.int64)

    def hold(self, place: Place, name: str) -> bool:
        """Whether the rows of a file are such as they are to be shown."""
        table = read_table(place, name, [KEY, ORDINAL])
        return bool((self.of(table.column(KEY)) == np.asarray(table.column(ORDINAL))).all())


@dataclass(frozen=True, slots=True)
class MadePart:
    """A part that can be shown."""

    sealed: Sealed
    first: int
    last: int

    @property
    def shown(self) -> ShownPart:
        """As the manifest has it."""
        part = self.sealed
        return ShownPart(part.name, part.rows, part.nbytes, part.sha256, self.first, self.last)


def name_of(turn: int, session: str) -> str:
    """The name of a write. A session is the eight hex digits of one process' time with the sink."""
    return f"rows-{turn:08}-{session}.parquet"


def staged_in(place: Place, job: str) -> list[str]:
    """Names of what a job has written there and not shown, in the order of writing."""
    folder = staging(job)
    names = (stored.name for stored in place.stored(folder))
    return sorted(name for name in names if _NAME.fullmatch(name.removeprefix(folder)))


def next_turn(names: Sequence[str]) -> int:
    """The turn of the next write, after these."""
    return max((int(match[1]) for name in names if (match := _NAME.search(name))), default=0) + 1


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows in the order in which they will be shown: parallel arrays of length n."""

    file: NDArray[np.int32]
    """Which file each is in."""
    row: NDArray[np.int32]
    """And where in it."""
    nbytes: NDArray[np.int64]
    """About how much it takes, before compression."""
    ordinal: NDArray[np.int64]
    """What it is shown with."""


class PartMaker:
    """Makes parts of files.

    Args:
        place: where both are.
        job: whose.
        names: of the files, in the order of writing; of rows with the same key the last counts.
        schema: of the parts.
        part_bytes: the most of a part, before compression; a single row may be larger.
        first: number of the first part.
        positions: of the rows that are wanted; None: all, as they were written.
    """

    def __init__(
        self,
        place: Place,
        job: str,
        names: Sequence[str],
        schema: Any,
        part_bytes: int,
        first: int,
        positions: Positions | None = None,
    ) -> None:
        self._place, self._job, self._names, self._schema = place, job, tuple(names), schema
        self._part_bytes, self._first, self._positions = part_bytes, first, positions
        self._tables: OrderedDict[int, Any] = OrderedDict()

    def make(self) -> list[MadePart]:
        """Make them; those that a process made of the same files before it was killed are taken as they are."""
        made = self._made_before()
        if not self._names:
            return made
        rows = self._ordered()
        cuts = _cuts(rows.nbytes, self._part_bytes)
        for number, (start, stop) in enumerate(pairwise(cuts)):
            if number >= len(made):
                made.append(self._make_part(self._first + number, rows, start, stop))
                said = {"of": self._fingerprint, "parts": [asdict(part) for part in made]}
                self._place.put(staging(self._job, SEALED), json.dumps(said).encode())
        self._tables.clear()
        return made

    @cached_property
    def _fingerprint(self) -> str:
        """What parts are made of, and how."""
        wanted = [] if self._positions is None else [sorted(self._positions.by_key.items())]
        told = json.dumps([self._names, self._part_bytes, self._first, str(self._schema), *wanted])
        return hashlib.sha256(told.encode()).hexdigest()

    def _made_before(self) -> list[MadePart]:
        made_of, parts = _made(self._place, self._job)
        if made_of == self._fingerprint:
            return parts
        forget_made(self._place, self._job)
        return []

    def _ordered(self) -> _Rows:
        """Every row that is the newest of its key, by ordinal; those of the same one by the digest of the key."""
        digests: list[NDArray[Any]] = []
        ordinals: list[NDArray[np.int64]] = []
        sizes: list[NDArray[np.int64]] = []
        vector = 4 * self._schema.field(VECTOR).type.list_size
        others = [name for name in self._schema.names if name != VECTOR]
        for name in self._names:
            table = read_table(self._place, name, others)
            keys = table.column(KEY)
            digests.append(digests_of(keys))
            here = self._positions
            ordinals.append(np.asarray(table.column(ORDINAL).combine_chunks()) if here is None else here.of(keys))
            sizes.append(row_bytes(table) + vector)
        live = newest(digests)
        counts = [len(each) for each in digests]
        file = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        row = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
        ordinal = np.concatenate(ordinals)
        kept = np.flatnonzero(np.concatenate(live) & (ordinal >= 0))
        keys = np.concatenate(digests)[kept]
        order = kept[np.lexsort((keys["low"], keys["high"], ordinal[kept]))]
        return _Rows(file[order], row[order], np.concatenate(sizes)[order], ordinal[order])

    def _make_part(self, number: int, rows: _Rows, start: int, stop: int) -> MadePart:
        pa, pq = arrow()
        file = self._place.begin(self._job, f"part-{self._job}-{number:05}.parquet")
        first = last = 0
        try:
            with pq.ParquetWriter(pa.PythonFile(file, mode="w"), self._schema, **write_options(self._schema)) as writer:
                groups = _cuts(rows.nbytes[start:stop], _GROUP_BYTES)
                for begin, end in pairwise(groups):
                    table = self._rows(rows, start + begin, start + end)
                    writer.write_table(table, row_group_size=len(table))
                    ordinals = table.column(ORDINAL)
                    first, last = (first if begin else ordinals[0].as_py()), ordinals[-1].as_py()
                writer.add_key_value_metadata({FIRST: str(first), LAST: str(last)})
            return MadePart(file.seal(stop - start), first, last)
        except BaseException:
            file.abandon()
            raise

    def _rows(self, rows: _Rows, start: int, stop: int) -> Any:
        """A table of these rows, in their order."""
        pa, _ = arrow()
        files, taken, places = rows.file[start:stop], [], []
        for number in np.unique(files).tolist():
            at = np.flatnonzero(files == number)
            taken.append(self._table(number).take(pa.array(rows.row[start:stop][at])))
            places.append(at)
        order = np.argsort(np.concatenate(places))
        columns = pa.concat_tables(taken).take(pa.array(order)).columns
        for name in self._positions.columns if self._positions else ():
            columns[self._schema.get_field_index(name)] = pa.chunked_array([pa.array(rows.ordinal[start:stop])])
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _table(self, number: int) -> Any:
        if number in self._tables:
            self._tables.move_to_end(number)
        else:
            self._tables[number] = read_table(self._place, self._names[number])
            if len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
        return self._tables[number]


def forget_made(place: Place, job: str) -> None:
    """Take away the parts that were made and are not shown; what they were made of stays."""
    _, parts = _made(place, job)
    place.forget(job, [part.sealed for part in parts])
    place.delete([staging(job, SEALED)])


def _made(place: Place, job: str) -> tuple[str, list[MadePart]]:
    """What parts were made of, and those that are complete."""
    data = place.read(staging(job, SEALED))
    if data is None:
        return "", []
    said: dict[str, Any] = json.loads(data)
    parts = [MadePart(Sealed(**part["sealed"]), part["first"], part["last"]) for part in said["parts"]]
    return said["of"], parts


def read_table(place: Place, name: str, columns: Sequence[str] | None = None) -> Any:
    """A whole file, checked by the sums of its pages."""
    _, pq = arrow()
    with pq.ParquetFile(place.open(name), page_checksum_verification=True) as file:
        return file.read(columns)


def live_in(place: Place, names: Sequence[str]) -> list[NDArray[np.bool_]]:
    """For each file, which of its rows are the newest of their key."""
    return newest([digests_in(place.open(name)) for name in names])


def next_number(job: str, parts: Sequence[ShownPart]) -> int:
    """The number of the next part of a job, after these."""
    matches = (re.fullmatch(rf"part-{job}-(\d+)\.parquet", part.name) for part in parts)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def _cuts(nbytes: NDArray[np.int64], most: int) -> list[int]:
    """Where to cut rows so that no piece has more bytes than this, if a single row has not: from 0 to their number."""
    ends, cuts = np.cumsum(nbytes), [0]
    while cuts[-1] < len(nbytes):
        before = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, before + most, side="right"))))
    return cuts
