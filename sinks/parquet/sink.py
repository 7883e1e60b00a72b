"""Rows into a Parquet data set that is published when the job is done: readers see nothing before, then all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal
from uuid import uuid4

from ...errors import CollectionMismatchError, PublishConflictError, SinkError
from ..arrow import arrow
from ..base import Found, Scannable, Searchable, SinkMemory
from ..fields import parse_fields
from .leftovers import undo
from .manifest import About, Claim, Manifest, claim_in, manifest_in
from .place import Hold, Place, staging
from .prepare import prepared
from .publish import conflict, finish, publish
from .reader import Files, Reader
from .staged import Positions, forget_made, live_in, name_of, next_turn, staged_in
from .table import DIMENSION, FORMAT, JOB, RECIPE, Layout, write_options
from .table_sink import TableSink

PART_BYTES: Final = 256 * 2**20
"""The most of a part, before compression."""

_MEMORY, _ROW_MEMORY = 200 * 2**20, 96
"""What putting rows in order takes at the end: files and row groups in memory, and for each row."""


class ParquetSink(TableSink):
    """Writes rows where nobody looks, and publishes them as one data set when `finish` is called; see `publish`.

    A write is a file in the place's staging folder, there for good when it returns. A job that keeps books finds its
    own again by its id, on any machine, and goes on; one that keeps none takes them away when it ends unpublished.

    Args:
        place: where the data set lies.
        dimension: length of the vectors; None: only to be read.
        job: id of the job, 32 hex digits; empty: one that keeps no books.
        note: what the vectors are made by; kept in every part, and in the manifest.
        fields: typed columns, as for `MilvusSink`.
        mode: ``append`` goes on with the job's own data set and refuses another's; ``overwrite`` replaces it, in the
            moment in which its own is published.
        metric: how `reader` compares: COSINE, IP or L2.
        part_bytes: the most of a part, before compression.
        layout: columns of another kind, instead of typed ones.
        late: whether rows are taken also where another job's data set lies, and only `finish` refuses: for those that
            are to be kept until somebody has decided which is wanted.
        positions: asked by `finish` for the rows that are to be shown, which were written now or before: others go.

    Raises:
        ConfigError: a setting that cannot be, or pyarrow is not installed.
    """

    scheme = "parquet"
    write_rows, write_bytes = 4096, 8 * 2**20

    def __init__(
        self,
        place: Place,
        dimension: int | None = None,
        *,
        job: str = "",
        note: str = "",
        fields: Mapping[str, str] | None = None,
        mode: Literal["append", "overwrite"] = "append",
        metric: str = "COSINE",
        part_bytes: int = PART_BYTES,
        layout: Layout | None = None,
        late: bool = False,
        positions: Callable[[], Positions] | None = None,
    ) -> None:
        arrow()
        if layout is None:
            layout = Layout(dimension or 0, parse_fields(fields or {}))
        super().__init__(place.uri, place.local_path, dimension, note, layout, metric)
        self._place, self._mode, self._part_bytes, self._late = place, mode, part_bytes, late
        self._positions = positions
        self._job, self._keeps_books = job or uuid4().hex, bool(job)
        self._session = uuid4().hex[:8]
        self._mutex = threading.Lock()
        self._hold: Hold | None = None
        self._closing = False
        self._writes = 0  # under way
        self._turn = 1
        self._base: Manifest | None = None
        self._replaces: str | None = None

    @property
    def threads(self) -> int:
        return 2

    def memory(self, dimension: int, rows: int) -> SinkMemory:
        """What publishing takes at the end."""
        del dimension
        return SinkMemory("publishing", _MEMORY + _ROW_MEMORY * rows)

    @property
    def needs_finish(self) -> bool:
        claim = claim_in(self._place)
        return (claim is not None and claim.job == self._job) or bool(staged_in(self._place, self._job))

    def look(self) -> Found | None:
        """What the job has there, shown or not; of a job that has nothing what is published, of whomever."""
        names = staged_in(self._place, self._job)
        there = manifest_in(self._place)
        if not names:
            return Found(_rows_in(self._place, there), there.recipe) if there else None
        if there is not None and there.job == self._job:
            names = [*(part.name for part in there.parts), *names]
        return Found(self._distinct(names), self._said(names[0]).get(RECIPE, ""))

    def open(self) -> None:
        """Take what the job has there, or begin.

        Raises:
            PublishConflictError: another job's data set is there, or is about to be; not where that is for later.
            CollectionMismatchError: the job's own rows have another dimension or other columns; to be read only:
                nothing is published there.
            SinkError: another process has it open for the same job.
        """
        if self._dimension is None:
            self._base = self._published()
            self._note = self._base.recipe
        else:
            self._hold = self._place.hold(self._job)
            try:
                self._begin()
            except BaseException:
                self._let_go()
                raise

    @property
    def _is_writable(self) -> bool:
        return self._hold is not None

    @property
    def _knows_positions(self) -> bool:
        """Without books they are those of one call."""
        return self._keeps_books or self._layout.knows_positions

    def _put(self, table: Any) -> None:
        with self._under_way() as turn:
            self._place.put(staging(self._job, name_of(turn, self._session)), _file_of(table))

    def count(self) -> int:
        """Different keys, shown or not. Reads all of them unless all are shown."""
        files = self._files()
        if files.distinct:
            return self._base.rows if self._base else 0
        return self._distinct(files.names)

    def reader(self) -> Searchable:
        """Looks at every vector: for up to some millions of them."""
        return Reader(self._place, self._files, self._metric)

    def scanner(self) -> Scannable:
        return Reader(self._place, self._files, self._metric)

    def finish(self) -> None:
        """Publish all rows that were written; see `publish`. Does nothing where there are none.

        Raises:
            PublishConflictError: another job was first. The rows stay where they are.
            SinkError: the place refuses; doing it again goes on.
        """
        hold = self._hold
        if hold is None:
            raise self._not_open
        hold.check()
        if (claim := claim_in(self._place)) and claim.job == self._job:
            finish(self._place, claim, hold)  # what an earlier run has begun
            self._base = manifest_in(self._place)
        names = staged_in(self._place, self._job)
        positions = self._positions() if self._positions else None
        if names or self._differs(positions):
            try:
                publish(self._place, self._claim(names, positions), hold)
            except PublishConflictError:
                forget_made(self._place, self._job)
                raise
            self._base = manifest_in(self._place)

    def close(self) -> None:
        """Let others at the place. Idempotent. A write that is under way lets go when it ends."""
        with self._mutex:
            self._closing = self._hold is not None
            if self._writes:
                return
        self._let_go()

    def _begin(self) -> None:
        there, claim = manifest_in(self._place), claim_in(self._place)
        names = staged_in(self._place, self._job)
        self._base = there if there and there.job == self._job else None
        self._replaces = self._replaced(there)
        if not self._late:
            if there and self._base is None and there.publication != self._replaces:
                raise conflict(self._place, None, there)
            if claim and claim.job != self._job:
                raise conflict(self._place, claim, there)
        if names or self._base:
            self._check(names[0] if names else "")
        self._turn = next_turn(names)

    def _replaced(self, there: Manifest | None) -> str | None:
        """The publication that this job is to take the place of, decided when it began."""
        if (about := About.of(self._place, self._job)) is None:
            replaces = there.publication if there and self._mode == "overwrite" else None
            about = About(self._keeps_books, replaces)
            about.keep(self._place, self._job)
        return about.replaces

    def _check(self, name: str) -> None:
        """Compare what the job has there with what this sink would write."""
        _, pq = arrow()
        if not name:
            assert self._base is not None
            if not self._base.parts:
                return
            name = self._base.parts[0].name
        with pq.ParquetFile(self._place.open(name)) as file:
            there, here = file.schema_arrow, self._layout.schema({})
        wrong = "" if there.equals(here) else f"columns {_told(there)}, this job makes {_told(here)}"
        if (length := int(there.metadata[DIMENSION.encode()])) != self._dimension:
            wrong = f"vectors of {length} dimensions, this job makes {self._dimension}"
        self._refuse(wrong)
        self._note = str(there.metadata.get(RECIPE.encode(), b""), "utf-8")

    def _differs(self, positions: Positions | None) -> bool:
        """Whether what is published is not what is to be shown, though nothing was written."""
        if positions is None or self._base is None:
            return False
        parts = [part.name for part in self._base.parts]
        return self._base.rows != len(positions.by_key) or not all(positions.hold(self._place, each) for each in parts)

    def _claim(self, names: list[str], positions: Positions | None) -> Claim:
        schema = self._layout.schema(self._about)
        base, replaces = self._base, self._replaces
        return prepared(self._place, self._job, names, base, replaces, schema, self._part_bytes, positions)

    @property
    def _about(self) -> dict[str, str]:
        return {FORMAT: "1", JOB: self._job, RECIPE: self._note}

    def _said(self, name: str) -> dict[str, str]:
        """What is said of a file."""
        _, pq = arrow()
        with pq.ParquetFile(self._place.open(name)) as file:
            return {str(key, "utf-8"): str(value, "utf-8") for key, value in file.schema_arrow.metadata.items()}

    def _files(self) -> Files:
        shown = [part.name for part in self._base.parts] if self._base else []
        staged = staged_in(self._place, self._job) if self._hold else []
        return Files([*shown, *staged], distinct=not staged)

    def _published(self) -> Manifest:
        """The data set, to be read.

        Raises:
            CollectionMismatchError: there is none.
            SinkError: parts of it are missing.
        """
        there = manifest_in(self._place)
        if there is None:
            claim = claim_in(self._place)
            why = f": job {claim.job} has begun to publish it; run it again" if claim else ""
            raise CollectionMismatchError(f"{self.uri} holds no complete data set{why}")
        if (rows := _rows_in(self._place, there)) != there.rows:
            raise SinkError(f"{self.uri}: parts are missing or cut: {rows} of {there.rows} rows are there")
        return there

    def _distinct(self, names: Sequence[str]) -> int:
        return sum(int(mask.sum()) for mask in live_in(self._place, names))

    @contextmanager
    def _under_way(self) -> Generator[int]:
        """A write, during which the staging folder stays ours; its turn."""
        with self._mutex:
            if self._hold is None or self._closing:
                raise SinkError(f"{self.uri}: the sink is closed")
            turn, self._turn = self._turn, self._turn + 1
            self._writes += 1
        try:
            yield turn
        finally:
            self._write_ended()

    def _write_ended(self) -> None:
        with self._mutex:
            self._writes -= 1
            if not self._closing or self._writes:
                return
        self._let_go()

    def _let_go(self) -> None:
        hold, self._hold = self._hold, None
        self._closing = False
        if hold is not None:
            try:
                if not (self._keeps_books and self.needs_finish):
                    undo(self._place, self._job, hold)
            finally:
                hold.close()


def _file_of(table: Any) -> Any:
    """A table as the bytes of a Parquet file."""
    pa, pq = arrow()
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, **write_options(table.schema))
    return buffer.getvalue()


def _rows_in(place: Place, manifest: Manifest) -> int:
    """Rows of those parts that are there, by their sizes."""
    sizes = {each.name: each.nbytes for each in place.stored()}
    return sum(part.rows for part in manifest.parts if sizes.get(part.name) == part.bytes)


def _told(schema: Any) -> str:
    return ", ".join(f"{name} {schema.field(name).type}" for name in schema.names)
