"""Where the records of a volume go: into memory, or where the configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...config.volumes import PipelineConfig
from .pages import Record
from .volumes import Writes


class RecordList(list[Record]):
    """Records in memory, for a volume that is published nowhere. See `Writes` for what a writer does."""

    def __init__(self) -> None:
        super().__init__()
        self._manifest: dict[str, Any] | None = None

    def published(self) -> Mapping[str, Any] | None:
        """What was published."""
        return self._manifest

    def write(self, records: Sequence[Record]) -> None:
        """Take records."""
        self.extend(records)

    def publish(self, pages: int, dead: int) -> Mapping[str, Any] | None:
        """All pages are done."""
        self._manifest = {"rows": len(self), "pages": pages, "dead": dead}
        return self._manifest

    def close(self) -> None:
        """Nothing to let go of."""


def writer_for(
    cfg: PipelineConfig,
    volume_id: str,
    job: str = "",
    recipe: str = "",
    pages: Callable[[], Mapping[str, int]] | None = None,
) -> Writes:
    """The writer of a volume, as the configuration says; see `S3ParquetWriter`.

    Raises:
        ConfigError: the place is none, or pyarrow is not installed.
    """
    if cfg.destination is None:
        return RecordList()
    from .parquet_writer import S3ParquetWriter  # and with it Parquet

    return S3ParquetWriter(cfg, volume_id, job, recipe, pages)
