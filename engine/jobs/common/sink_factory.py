"""Where a job's rows go, made of its configuration: a Milvus collection, or a folder of Parquet for bulk import."""

from __future__ import annotations

from typing import Any

from ....errors import ConfigError
from ....sinks import MilvusSink, ParquetBulkSink, parse_uri
from ...config.model import ServiceConfig
from .output_paths import bulk_folder

BULK_ROWS = 4096
"""Rows of one write to a bulk folder, at least: each write is a file until the end."""

Store = MilvusSink | ParquetBulkSink


def is_bulk(config: ServiceConfig) -> bool:
    """Whether rows go to files for a bulk import."""
    return bulk_folder(config) is not None


def rows_per_write(config: ServiceConfig, rows: int) -> int:
    """Rows of one write, where the user said `rows`."""
    return max(rows, BULK_ROWS) if is_bulk(config) else rows


def check_store(config: ServiceConfig) -> None:
    """Refuse what can be refused without a connection; before workers are started.

    Raises:
        ConfigError: no store, or a setting of it that cannot be.
    """
    if not config.to:
        raise ConfigError('to is missing: say where the rows go, e.g. to="photos.db" or to="http://host:19530"')
    if not is_bulk(config):
        parse_uri(config.to)
    make_store(config, config.collection, 2, "")


def make_store(config: ServiceConfig, collection: str, dimension: int, note: str) -> Store:
    """The store to write to, not open.

    Args:
        config: of the job.
        collection: its name.
        dimension: floats of a vector.
        note: what the vectors are made by.

    Raises:
        ConfigError: a setting that cannot be.
    """
    assert config.to is not None
    shape: dict[str, Any] = {
        "note": note,
        "mode": config.mode,
        "fields": config.fields,
        "partition_key": config.partition_key,
    }
    folder = bulk_folder(config)
    if folder is None:
        index: dict[str, Any] = {"metric": config.metric, "index": config.index, "index_params": config.index_params}
        return MilvusSink(config.to, collection, dimension, **index, **shape, **_access(config))
    if not folder.name:
        raise ConfigError(f"to: {config.to!r} names no folder; as in bulk:parts")
    if collection != config.collection:
        raise ConfigError(
            f"{config.to} is for the collection {config.collection!r}; {collection!r} needs its own folder"
        )
    if config.partition is not None or config.wait_index is not None:
        raise ConfigError("partition and wait_index are for the import: penstock import DIR --to URI --partition NAME")
    return ParquetBulkSink(folder, dimension, collection=collection, **shape)


def reader(config: ServiceConfig, collection: str) -> MilvusSink:
    """The store to search, not open; the collection must be there.

    Raises:
        ConfigError: it is a bulk folder.
    """
    assert config.to is not None
    folder = bulk_folder(config)
    if folder is not None:
        raise ConfigError(
            f"{config.to} is a folder of files, which cannot be searched; import it first:"
            f" penstock import {folder} --to http://host:19530"
        )
    return MilvusSink(config.to, collection, metric=config.metric, **_access(config))


def _access(config: ServiceConfig) -> dict[str, Any]:
    """How a collection is reached, to write or to search."""
    token = config.token.get_secret_value() if config.token else None
    return {"token": token, "partition": config.partition, "retry_for": config.retry_for}
