"""Metadata that lie with a picture as columns of its row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

_TAKEN: Final = frozenset({"", "key", "vector", "path", "width", "height", "$meta"})
"""Names of columns that every row has, or no row may have."""

_PREFIX: Final = "source_"


def as_columns(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The same by the names that a row can have, as values that JSON can say.

    What has the name of a column that every row has (``key``, ``vector``, ``path``, ``width``, ``height``) is called
    ``source_key`` and so on. None and NaN, by which many say that there is no value, are left out.
    """
    plain = {(f"{_PREFIX}{name}" if name in _TAKEN else name): _plain(value) for name, value in metadata.items()}
    return {name: value for name, value in plain.items() if value is not None}


def loads(text: str) -> Any:
    """JSON, with nothing for NaN and infinity, which are none."""
    return json.loads(text, parse_constant=lambda _: None)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return loads(json.dumps(value, default=str))
