"""From ``parquet:DIR`` or ``parquet:s3://bucket/prefix`` to the place that it names."""

from __future__ import annotations

from ...object_stores.urls import StoreURL
from ..local import local_path
from .folder import FolderPlace
from .objects import ObjectPlace
from .place import Place
from .s3 import S3Place


def parquet_place(uri: str) -> Place:
    """The place of a data set. Connects to nothing.

    Args:
        uri: what the user wrote.

    Raises:
        ConfigError: it names none.
    """
    rest = uri.partition(":")[2]
    if "://" not in rest:
        return FolderPlace(local_path(uri, "rows"))
    url = StoreURL.parse(rest)
    if url.scheme == "file":
        return FolderPlace(url.key)
    return S3Place(url) if url.scheme == "s3" else ObjectPlace(url)
