"""What can be set about jobs on scanned volumes: the settings of any job, and those of a volume worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import Field

from ...errors import ConfigError
from .model import ServiceConfig
from .sections import SECTIONS
from .stores import Destinations
from .types import Size

PARQUET: Final = "parquet:"

_OTHERS: Final = {
    *SECTIONS["sink"].values(),
    *("workers", "slots", "threads", "devices", "sandbox", "decoder", "metadata", "list_filtered", "async_pipeline"),
    *("redo", "accept_store", "item_timeout"),
} - {"to", "insert_batch_size", "retry_for"}
"""Settings that a job on volumes does not have."""

_PAGES: Final = ("max_passes", "min_angle", "min_bend", "min_quality")
"""Settings that say what becomes of a page."""


class PipelineConfig(ServiceConfig):
    """Everything that can be set about a volume worker, beside what `ServiceConfig` has for every job.

    Raises:
        ConfigError: a value is not allowed, a name is no field, or a field that volumes do not have; the message names
            it.
    """

    kind: ClassVar[str] = "volumes"
    stages: ClassVar[tuple[str, ...]] = (
        *("source", "prefetch", "decode", "patches", "compute", "pages", "look", "transform", "write"),
    )

    to: Destinations = Field(default=None, json_schema_extra={"metavar": "PLACE", "option": "--to"})
    """Where volumes are published, as Parquet: parquet:s3://bucket/prefix, gs://, az://, or parquet:DIR. Each becomes a
    data set in a folder of its own name there."""

    s3_bucket: str | None = Field(default=None, min_length=1)
    """Where the keys of tasks are: a bucket of S3 by its name, another store by its URL (gs://bucket, az://container),
    or a folder of this machine (file:///scans, or a path with a slash). Without one keys are URLs or absolute paths."""

    out_prefix: str | None = Field(default=None, min_length=1)
    """Where volumes are published, each in a folder of its own name: s3://bucket/prefix, or a folder. The same as to,
    without its parquet: in front."""

    staging_prefix: str | None = Field(default=None, min_length=1)
    """Taken, and not needed: until a volume is published its parts are open uploads (S3), or lie in a folder _staging
    below out_prefix."""

    s3_max_inflight_global: int = Field(default=64, ge=1, le=1024)
    """Reads under way at once, of all volumes of this process together."""

    s3_max_inflight: int = Field(default=16, ge=1, le=1024, json_schema_extra={"metavar": "N"})
    """Reads that one volume worker has under way: about 1.3 times the pages a second, times the seconds of one read."""

    fetch_queue_size: int = Field(default=8, ge=1, le=4096)
    """Pages that have been read and wait to be decoded."""

    fetch_queue_bytes: int = Field(default=256 * 2**20, ge=1)
    """Bytes of them, and of those that are being read; a larger page is read alone."""

    memory: Size | None = Field(default=None, json_schema_extra={"metavar": "SIZE"})
    """The most memory the job may take: 4GiB, 512M, or 50% of the machine's. So many pages are decoded ahead as there
    is room for. [default: room for 1 GiB of decoded pages]"""

    frame_queue_size: int = Field(default=2, ge=1, le=256)
    """Decoded pages that wait to be cut into patches, in each lane."""

    open_pages: int = Field(default=4, ge=1, le=256)
    """Pages whose patches are on their way into batches."""

    decode_threads: int = Field(default=2, ge=1, le=256, json_schema_extra={"metavar": "N"})
    """Threads that decode pages, and as many that straighten them."""

    compute_threads: int = Field(default=1, ge=1, le=64, json_schema_extra={"metavar": "N"})
    """Batches of patches that are computed at once."""

    batch_size: int = Field(default=16, ge=1, le=1024, json_schema_extra={"metavar": "N"})
    """Patches in a batch, of any pages; a shorter one is filled up, so that one program is compiled."""

    batch_timeout: float = Field(default=0.05, gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """How long the first patch of a batch waits for others, at most."""

    reprocess_weight: int = Field(default=3, ge=1, le=64)
    """Patches of straightened pages that are taken for each one of a first look."""

    max_passes: int = Field(default=2, ge=0, le=8, json_schema_extra={"metavar": "N"})
    """How often a page goes round at most: is straightened and looked at again. 0: pages are only measured."""

    min_angle: float = Field(default=0.15, ge=0, le=20, json_schema_extra={"metavar": "DEGREES"})
    """Skew from which on a page is straightened."""

    min_bend: float = Field(default=4.0, ge=0, allow_inf_nan=False, json_schema_extra={"metavar": "PIXELS"})
    """Pixels by which a line of text is bent, for each 2,000 pixels of width, from which on a page is dewarped."""

    min_quality: float = Field(default=1.0, ge=1, le=20, json_schema_extra={"metavar": "Q"})
    """Below it a page has no lines of text to go by, and stays as it is: 0 is blank, 2 to 5 straight text."""

    insert_batch_size: int = Field(default=32, ge=1, le=16_384, json_schema_extra={"metavar": "N"})
    """Rows that are written at once: what a process that dies does again."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if wrong := sorted(self.model_fields_set & _OTHERS):
            raise ConfigError(f"{wrong[0]}: jobs on volumes have no such setting")
        if self.to is not None and not (isinstance(self.to, str) and self.to.startswith(PARQUET)):
            raise ConfigError(f"to: {self.shown_to!r}: volumes are published in one place, as Parquet: parquet:PLACE")
        if self.update and self.job is None:
            raise ConfigError(
                "update: is about the books of a job, and there are none; they are kept with job=DIR (--job)"
            )

    @property
    def own_fingerprints(self) -> Mapping[str, str]:
        """From when on pages are straightened, and how often: records made otherwise cannot be compared."""
        return {"pages": ", ".join(f"{name} {getattr(self, name):g}" for name in _PAGES)}

    @property
    def destination(self) -> str | None:
        """Where volumes are published; None: nowhere, their records stay in memory."""
        return self.out_prefix or (self.destinations[0].removeprefix(PARQUET) if self.destinations else None)
