"""Scanned volumes: ``VolumeWorker`` and its parts, and the job behind ``penstock volumes``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .batcher import GpuBatcher, PatchFunction
    from .contact_sheet import ContactSheet
    from .decoder import Decoder
    from .pages import DecodedFrame, ImageTask, PageLook, Record
    from .parquet_writer import S3ParquetWriter
    from .prefetcher import Prefetcher
    from .s3_context import S3Context
    from .transform import TransformController
    from .worker import VolumeWorker
    from .writer import RecordList
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "batcher": ("GpuBatcher", "PatchFunction"),
            "contact_sheet": ("ContactSheet",),
            "decoder": ("Decoder",),
            "pages": ("DecodedFrame", "ImageTask", "PageLook", "Record"),
            "parquet_writer": ("S3ParquetWriter",),
            "prefetcher": ("Prefetcher",),
            "s3_context": ("S3Context",),
            "transform": ("TransformController",),
            "worker": ("VolumeWorker",),
            "writer": ("RecordList",),
        },
    )

__all__ = [
    "ContactSheet",
    "DecodedFrame",
    "Decoder",
    "GpuBatcher",
    "ImageTask",
    "PageLook",
    "PatchFunction",
    "Prefetcher",
    "Record",
    "RecordList",
    "S3Context",
    "S3ParquetWriter",
    "TransformController",
    "VolumeWorker",
]
