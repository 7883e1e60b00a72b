"""Records of a volume into a data set of Parquet that is published at once."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ....errors import PublishConflictError, SinkError, StoreChangedError
from ....sinks.arrow import arrow
from ....sinks.parquet.manifest import MANIFEST, Manifest, claim_in, manifest_in
from ....sinks.parquet.places import parquet_place
from ....sinks.parquet.sink import ParquetSink
from ....sinks.parquet.staged import Positions, staged_in
from ....sinks.parquet.table import DIMENSION, ORDINAL
from ...config.volumes import PARQUET, PipelineConfig
from .pages import Record
from .places import below
from .records import PAGE, RecordLayout, rows_of


class S3ParquetWriter:
    """Writes the records of a volume where nobody looks, and publishes all of them as one data set. See `Writes`.

    The data set is the folder ``VOLUME`` below the configuration's `out_prefix`: in a bucket, or on this machine.
    Readers see nothing before it is complete, and a complete one has a ``_SUCCESS.json``; of several that publish the
    same volume one wins, and `publish` refuses the others: until then all of them write.

    Args:
        cfg: says where.
        volume_id: the volume.
        job: id of a job that keeps books, which finds again what it has written there; empty for others, of which
            nothing stays that was not published.
        recipe: what the vectors are made by, as text; another one than of a volume that is published is refused.
        pages: of a job that keeps books: says, when all pages of the volume are done, which are to be in it, and the
            number of each. Others that the job has written there earlier go.

    Raises:
        ConfigError: the place is none, or pyarrow is not installed.
    """

    def __init__(
        self,
        cfg: PipelineConfig,
        volume_id: str,
        job: str = "",
        recipe: str = "",
        pages: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        arrow()
        assert cfg.destination is not None
        self._place = parquet_place(f"{PARQUET}{below(cfg.destination, volume_id)}")
        self._volume_id, self._job, self._recipe, self._pages = volume_id, job, recipe, pages
        self._sink: ParquetSink | None = None

    def published(self) -> Mapping[str, Any] | None:
        """What the volume's manifest says; None as long as it is not published as it is to be: where rows of the job
        wait there, or some have to go.

        Raises:
            SinkError: the place cannot be read, or holds a volume whose vectors were made otherwise.
        """
        there = manifest_in(self._place)
        if there is None or self._has_unshown or (there.job == self._job and self._is_stale(there)):
            return None
        if self._recipe and there.recipe != self._recipe:
            raise SinkError(
                f"{self._place.uri}: a volume is published there whose vectors were made otherwise: take another place"
                " (--to), or the settings that it was made with"
            )
        return there.to_json()

    def write(self, records: Sequence[Record]) -> None:
        """Take records, for good.

        Raises:
            SinkError: the place refuses.
        """
        rows = rows_of(records)
        if self._sink is None:
            self._sink = self._opened(rows.vectors.shape[1])
        refused = self._sink.write(rows).refused
        if refused:
            raise SinkError(f"{self._place.uri}: {refused[0][1]}")

    def publish(self, pages: int, dead: int) -> Mapping[str, Any] | None:
        """Show the data set.

        Raises:
            PublishConflictError: another job has published the volume, or is about to.
            StoreChangedError: the rows that were written are not there any more.
            SinkError: the place refuses.
        """
        del pages, dead
        if self._sink is None:
            dimension = self._dimension_there()
            if dimension is None:
                return self._without_rows()
            self._sink = self._opened(dimension)
        try:
            self._sink.finish()
        except PublishConflictError as error:
            raise PublishConflictError(f"volume {self._volume_id!r}: {self._told(error)}") from error
        return self.published()

    def close(self) -> None:
        """Let go. Without a job nothing stays that was not published."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    @property
    def _has_unshown(self) -> bool:
        """Whether the job has something there that is not published: an earlier run was killed, or refused."""
        if not self._job:
            return False
        claim = claim_in(self._place)
        return (claim is not None and claim.job == self._job) or bool(staged_in(self._place, self._job))

    def _is_stale(self, there: Manifest) -> bool:
        """Whether what the job has published is seen to be no more what is to be there, without reading it."""
        if self._pages is None:
            return False
        pages = self._pages()
        last = max((part.last for part in there.parts), default=-1)
        return there.rows != len(pages) or last != max(pages.values(), default=-1)

    def _dimension_there(self) -> int | None:
        """The length of the vectors that the job has there; None: it has nothing there."""
        if not self._job:
            return None
        if staged := staged_in(self._place, self._job):
            return self._dimension_of(staged[0])
        there = manifest_in(self._place)
        return there.dimension if there is not None and there.job == self._job else None

    def _without_rows(self) -> Mapping[str, Any] | None:
        if there := self.published():
            return there
        if self._pages and (pages := self._pages()):
            raise StoreChangedError(
                f"{self._place.uri}: none of the {len(pages):,} rows that were written are there any more. Do them"
                " again: begin a new job (--job) for them"
            )
        return None

    def _told(self, error: PublishConflictError) -> str:
        """What keeps it from being published, and the ways on."""
        there = manifest_in(self._place)
        if there is None or there.job == self._job:
            return str(error)
        said = f"job {there.job} has published it in {self._place.uri} ({there.created})"
        if not self._job:
            return f"{said}: nothing was changed there; take another place (--to)"
        clean = shlex.join(["penstock", "clean", f"{PARQUET}{self._place.uri}", "--job", self._job])
        return (
            f"{said}. The rows of this job wait there: take away its {MANIFEST} and go on (penstock resume) to publish"
            f" them instead, or give them up: {clean}"
        )

    def _opened(self, dimension: int) -> ParquetSink:
        layout = RecordLayout(dimension)
        own: dict[str, Any] = {"job": self._job, "note": self._recipe, "positions": self._positions()}
        sink = ParquetSink(self._place, dimension, layout=layout, late=True, **own)
        sink.open()
        return sink

    def _positions(self) -> Callable[[], Positions] | None:
        pages = self._pages
        return None if pages is None else lambda: Positions(pages(), (PAGE, ORDINAL))

    def _dimension_of(self, name: str) -> int:
        _, pq = arrow()
        with pq.ParquetFile(self._place.open(name)) as file:
            return int(file.schema_arrow.metadata[DIMENSION.encode()])
