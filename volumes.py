"""Volumes of scanned pages: read from an object store, looked at, straightened, embedded, and published as Parquet.

Each part of `VolumeWorker` can be replaced by a class of yours with the same few methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine.config.volumes import PipelineConfig
    from .engine.jobs.volumes import (
        ContactSheet,
        DecodedFrame,
        Decoder,
        GpuBatcher,
        ImageTask,
        PageLook,
        Prefetcher,
        Record,
        S3Context,
        S3ParquetWriter,
        TransformController,
        VolumeWorker,
    )
else:

    def __getattr__(name: str) -> object:
        """Imported when it is first used: decoders, JAX and stores are no business of whoever wants a task."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .engine.config.volumes import PipelineConfig
        from .engine.jobs import volumes

        return PipelineConfig if name == "PipelineConfig" else getattr(volumes, name)

    def __dir__() -> list[str]:
        return sorted(__all__)


__all__ = [
    "ContactSheet",
    "DecodedFrame",
    "Decoder",
    "GpuBatcher",
    "ImageTask",
    "PageLook",
    "PipelineConfig",
    "Prefetcher",
    "Record",
    "S3Context",
    "S3ParquetWriter",
    "TransformController",
    "VolumeWorker",
]
