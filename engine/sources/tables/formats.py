"""The formats of tables that are read, by their schemes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from .base import TableFormat
from .parquet import ParquetFormat

FORMATS: Final[Mapping[str, Callable[[], TableFormat]]] = {"parquet": ParquetFormat}
