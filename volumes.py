"""Volumes of scanned pages: read from an object store, looked at, straightened, embedded, and published as Parquet.

Each part of `VolumeWorker` can be replaced by a class of yours with the same few methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_exports

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
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            ".engine.config.volumes": ("PipelineConfig",),
            ".engine.jobs.volumes": (
                "ContactSheet",
                "DecodedFrame",
                "Decoder",
                "GpuBatcher",
                "ImageTask",
                "PageLook",
                "Prefetcher",
                "Record",
                "S3Context",
                "S3ParquetWriter",
                "TransformController",
                "VolumeWorker",
            ),
        },
    )

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
