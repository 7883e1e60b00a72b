"""The list of duplicates as a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final

from ....durable import put
from ....errors import ConfigError
from ....sinks.arrow import arrow
from ...dedup import Duplicate

_ROWS: Final = 1 << 16
"""Of a row group."""


def write_duplicates(duplicates: Iterable[Duplicate], path: Path) -> None:
    """Write ``key, duplicate_of, similarity, rule`` for each, whole or not at all. The same rows make the same bytes.

    Raises:
        OSError: the disk refuses.
    """
    pa, pq = arrow()
    schema = pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("duplicate_of", pa.string(), nullable=False),
            pa.field("similarity", pa.float64(), nullable=False),
            pa.field("rule", pa.string(), nullable=False),
        ]
    )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    rows = iter(duplicates)
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            while some := list(islice(rows, _ROWS)):
                columns = [[getattr(each, name) for each in some] for name in schema.names]
                writer.write_table(pa.table(columns, schema=schema))
        put(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_table_path(path: Path) -> None:
    """Whether the list could be written there; to be asked before anything is begun.

    Raises:
        ConfigError: no such folder, not writable, no name of a Parquet file, or pyarrow is not installed.
    """
    arrow()
    if path.suffix != ".parquet":
        raise ConfigError(f"duplicates: {str(path)!r}: the list is a Parquet file, as in duplicates.parquet")
    if not path.parent.is_dir() or path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(f"duplicates: {str(path)!r} cannot be written: its folder must exist and be writable")
