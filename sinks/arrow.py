"""Arrow, for sinks that write tables: the optional package, and which of its types a typed column has."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from ..errors import ConfigError
from .fields import ScalarField

_TYPES: Final = {"float": "float32", "double": "float64", "varchar": "string", "json": "string", "bool": "bool_"}


def arrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet half.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError("Parquet files need pyarrow: pip install 'penstock[parquet]'") from error


def arrow_type(field: ScalarField) -> Any:
    """The type of the column of a field; of JSON it is its text."""
    pa, _ = arrow()
    return getattr(pa, _TYPES.get(field.kind, field.kind))()
