"""From ``parquet:DIR`` or ``parquet:s3://bucket/prefix`` to the place that it names."""

from __future__ import annotations

from ..local import local_path
from .folder import FolderPlace
from .place import Place


def parquet_place(uri: str) -> Place:
    """The place of a data set. Connects to nothing.

    Args:
        uri: what the user wrote.

    Raises:
        ConfigError: it names none.
    """
    return FolderPlace(local_path(uri, "rows"))
