"""Typed columns of a collection: how they are declared, and how a value is made to fit or refused."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError

MAX_VARCHAR_BYTES = 65_535
MAX_JSON_BYTES = 65_536

INTEGERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
KINDS = ("bool", *INTEGERS, "float", "double", "varchar", "json")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_KIND = re.compile(r"([a-z0-9]+)(?:\((\d+)\))?")
_FORM = f"NAME:TYPE with a TYPE of {', '.join(KINDS)}; varchar takes a length in bytes, as in album:varchar(256)"
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class ScalarField:
    """One typed column.

    Raises:
        ConfigError: a name or type that Milvus does not know.
    """

    name: str
    kind: str
    """One of `KINDS`."""
    length: int = 0
    """Of a varchar: bytes of UTF-8."""
    nullable: bool = True
    default: Any = None
    """Stands for null where a field cannot be null; None: there is nothing that could."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"field: {self.name!r:.100} is no name of a column: a letter or _, then letters, digits")
        if self.kind not in KINDS or bool(self.length) != (self.kind == "varchar"):
            raise ConfigError(f"field: {self.name!r}: {self.declared!r} is no type; give {_FORM}")
        if self.length > MAX_VARCHAR_BYTES:
            raise ConfigError(
                f"field: {self.name!r}: varchar({self.length}) is too long, {MAX_VARCHAR_BYTES} is the most"
            )

    @property
    def declared(self) -> str:
        """Its type as one writes it: ``varchar(64)``."""
        return f"{self.kind}({self.length})" if self.length else self.kind

    def fitted(self, value: Any) -> Any:
        """The value as Milvus takes it, unchanged in meaning.

        Raises:
            ValueError: it does not fit; the message says why, without the field's name.
        """
        plain: Any = value.item() if isinstance(value, np.generic) else value
        return _FITTED[self.kind](self, plain)

    def parsed(self, text: str) -> Any:
        """The value that a text stands for, from a file in which all is text.

        Raises:
            ValueError: it stands for none of this type.
        """
        if self.kind == "bool":
            if text.strip().lower() not in _TRUTH:
                raise ValueError(f"{text!r:.60} is not true or false")
            return _TRUTH[text.strip().lower()]
        if self.kind in INTEGERS:
            return int(text)
        if self.kind in {"float", "double"}:
            return float(text)
        return json.loads(text) if self.kind == "json" else text


def parse_fields(declared: Mapping[str, str]) -> tuple[ScalarField, ...]:
    """Fields from ``{"year": "int64", "album": "varchar(256)"}``.

    Raises:
        ConfigError: a name or type that cannot be.
    """
    return tuple(_field(name, kind) for name, kind in declared.items())


def _field(name: str, declared: str) -> ScalarField:
    match = _KIND.fullmatch(declared.strip().lower().replace(" ", ""))
    if match is None:
        raise ConfigError(f"field: {name!r}: {declared!r:.100} is no type; give {_FORM}")
    kind, length = match.groups()
    return ScalarField(name, kind, int(length) if length else MAX_VARCHAR_BYTES if kind == "varchar" else 0)


def _integer(field: ScalarField, value: Any) -> int:
    half = 2 ** (INTEGERS[field.kind] - 1)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r:.60} is {type(value).__name__}, not a whole number")
    if not -half <= value < half:
        raise ValueError(f"{value} is not within {-half} to {half - 1}")
    return value


def _number(field: ScalarField, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r:.60} is {type(value).__name__}, not a number")
    # Milvus takes infinity without a word, and 1e300 becomes it in a float.
    if not math.isfinite(value) or (field.kind == "float" and abs(value) > _FLOAT_MAX):
        raise ValueError(f"{value!r:.60} is not a finite {field.kind}")
    return float(value)


def _bool(field: ScalarField, value: Any) -> bool:
    del field
    if not isinstance(value, bool):  # Milvus takes any number for true
        raise ValueError(f"{value!r:.60} is {type(value).__name__}, not true or false")
    return value


def _varchar(field: ScalarField, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is {type(value).__name__}, not text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{value!r:.60} is not valid Unicode") from None
    if size > field.length:
        raise ValueError(f"it has {size} bytes, {field.length} is the most")
    return value


def _json(field: ScalarField, value: Any) -> Any:
    del field
    if not isinstance(value, dict):  # Milvus 2.3 takes nothing else, and says so of the whole call
        raise ValueError(f"{value!r:.60} is {type(value).__name__}, not a JSON object")
    try:
        text = json.dumps(value, default=jsonable, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if size > MAX_JSON_BYTES:
        raise ValueError(f"it has {size} bytes as JSON, {MAX_JSON_BYTES} is the most")
    return json.loads(text)


def jsonable(value: Any) -> Any:
    """What is not JSON by itself as JSON: numpy values and paths; for ``json.dumps(default=...)``.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return printable(value)
    raise TypeError(f"it holds an object of type {type(value).__name__}")


def printable(path: str | os.PathLike[Any]) -> str:
    """The path as valid Unicode: bytes that are not UTF-8 appear as ``\\xe9``. The key still tells such paths apart."""
    name = os.fspath(path)
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


_FITTED: dict[str, Callable[[ScalarField, Any], Any]] = {
    **dict.fromkeys(INTEGERS, _integer),
    "bool": _bool,
    "float": _number,
    "double": _number,
    "varchar": _varchar,
    "json": _json,
}
