"""The formats of tables that are read, by their schemes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ....object_stores.options import StoreOptions
from .arrow import ArrowFormat
from .base import TableFormat
from .lance import LanceFormat
from .parquet import ParquetFormat

FORMATS: Final[Mapping[str, Callable[[StoreOptions], TableFormat]]] = {
    "arrow": ArrowFormat,
    "lance": LanceFormat,
    "parquet": ParquetFormat,
}
