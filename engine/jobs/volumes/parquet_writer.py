"""Records of a volume into a data set of Parquet that is published at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....errors import SinkError
from ....sinks.arrow import arrow
from ....sinks.parquet.manifest import manifest_in
from ....sinks.parquet.places import parquet_place
from ....sinks.parquet.sink import ParquetSink
from ....sinks.parquet.staged import staged_in
from ....sinks.parquet.table import DIMENSION
from ...config.volumes import PARQUET, PipelineConfig
from .pages import Record
from .places import below
from .records import RecordLayout, rows_of


class S3ParquetWriter:
    """Writes the records of a volume where nobody looks, and publishes all of them as one data set. See `Writes`.

    The data set is the folder ``VOLUME`` below the configuration's `out_prefix`: in a bucket, or on this machine.
    Readers see nothing before it is complete, and a complete one has a ``_SUCCESS.json``; of several that publish the
    same volume one wins.

    Args:
        cfg: says where.
        volume_id: the volume.
        job: id of a job that keeps books, which finds again what it has written there; empty for others, of which
            nothing stays that was not published.
        recipe: what the vectors are made by, as text; another one than of a volume that is published is refused.

    Raises:
        ConfigError: the place is none, or pyarrow is not installed.
    """

    def __init__(self, cfg: PipelineConfig, volume_id: str, job: str = "", recipe: str = "") -> None:
        arrow()
        assert cfg.destination is not None
        self._place = parquet_place(f"{PARQUET}{below(cfg.destination, volume_id)}")
        self._job, self._recipe = job, recipe
        self._sink: ParquetSink | None = None

    def published(self) -> Mapping[str, Any] | None:
        """What the volume's manifest says; None as long as it is not published.

        Raises:
            SinkError: the place cannot be read, or holds a volume whose vectors were made otherwise.
        """
        there = manifest_in(self._place)
        if there is None:
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
            SinkError: the place refuses, or another job has published the volume.
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
            SinkError: another job has published the volume, or is about to; or the place refuses.
        """
        del pages, dead
        if self._sink is None:
            staged = staged_in(self._place, self._job) if self._job else []
            if not staged:
                return self.published()
            self._sink = self._opened(self._dimension_of(staged[0]))
        self._sink.finish()
        return self.published()

    def close(self) -> None:
        """Let go. Without a job nothing stays that was not published."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _opened(self, dimension: int) -> ParquetSink:
        sink = ParquetSink(self._place, dimension, job=self._job, note=self._recipe, layout=RecordLayout(dimension))
        sink.open()
        return sink

    def _dimension_of(self, name: str) -> int:
        _, pq = arrow()
        with pq.ParquetFile(self._place.open(name)) as file:
            return int(file.schema_arrow.metadata[DIMENSION.encode()])
