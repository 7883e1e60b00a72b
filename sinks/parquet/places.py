"""From ``parquet:DIR`` or ``parquet:s3://bucket/prefix`` to the place that it names."""

from __future__ import annotations

from typing import Final

from ...object_stores.options import StoreOptions
from ...object_stores.urls import StoreURL
from ..local import local_path
from .folder import FolderPlace
from .objects import ObjectPlace
from .place import Place
from .s3 import S3Place

PATIENT: Final = StoreOptions(retries=100, retry_for=120.0)
"""How an object store is spoken to where rows are written: through an outage of two minutes."""


def parquet_place(uri: str, options: StoreOptions = PATIENT) -> Place:
    """The place of a data set. Connects to nothing.

    Args:
        uri: what the user wrote.
        options: how an object store is spoken to.

    Raises:
        ConfigError: it names none.
    """
    rest = uri.partition(":")[2]
    if "://" not in rest:
        return FolderPlace(local_path(uri, "rows"))
    url = StoreURL.parse(rest)
    if url.scheme == "file":
        return FolderPlace(url.key)
    return S3Place(url, options) if url.scheme == "s3" else ObjectPlace(url, options)
