"""Which columns of a table are what, and the values of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from ....errors import ReadError
from .base import library
from .spec import ALL, TableSpec

_NONE: Final = "there is no picture in its row"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one file that are read.

    Attributes:
        image: name of the column of pictures: bytes, a struct with ``bytes`` (and ``path``), or a path.
        key: name of the column of keys, or empty.
        metadata: names.
    """

    image: str
    key: str
    metadata: Sequence[str]

    @classmethod
    def of(cls, spec: TableSpec, schema: Any) -> Self:
        """What a spec means in a file.

        Raises:
            ReadError: a column is not there, cannot be what it is meant for, or it is not clear which is meant.
        """
        types = {field.name: field.type for field in schema}
        image = spec.image or _only_image(types)
        for name in (image, *([spec.key] if spec.key else ()), *(name for name in spec.columns if name != ALL)):
            if name not in types:
                raise ReadError(f"has no column {name!r}, it has {', '.join(map(repr, types))}")
        if not (_holds_pictures(types[image]) or _holds_paths(types[image])):
            raise ReadError(f"the column {image!r} is {types[image]}: no bytes, struct<bytes, path> or paths")
        if spec.key and not _holds_keys(types[spec.key]):
            raise ReadError(f"the column {spec.key!r} is {types[spec.key]}: keys are texts or whole numbers")
        free = [name for name in types if name not in {image, spec.key} and not _is_binary(types[name])]
        chosen = [name for each in spec.columns for name in (free if each == ALL else [each])]
        if wrong := [name for name in chosen if name not in free]:
            raise ReadError(f"the column {wrong[0]!r} cannot be metadata: it is the pictures, the key, or binary")
        return cls(image, spec.key, [*dict.fromkeys(chosen)])

    @property
    def all(self) -> list[str]:
        """The names of all."""
        return [*dict.fromkeys(filter(None, (self.image, self.key, *self.metadata)))]


def key_in(value: Any) -> str:
    """The key that a value of the key column is.

    Raises:
        ReadError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise ReadError(f"its key is {value!r:.60}: a key is a text or a whole number")
    return str(value)


def picture_in(scalar: Any) -> tuple[Any, str | None]:
    """The picture of a row, as a ``pyarrow.Buffer`` that views its batch, or as a path.

    Raises:
        ReadError: there is none.
    """
    if not scalar.is_valid:
        raise ReadError(_NONE)
    if not hasattr(scalar, "as_buffer"):  # a struct
        inner = dict(scalar.items())
        data, path = inner["bytes"], inner.get("path")
        if data.is_valid:
            return data.as_buffer(), None
    elif _holds_paths(scalar.type):
        path = scalar
    else:
        return scalar.as_buffer(), None
    if path is None or not path.as_py():
        raise ReadError(_NONE)
    return None, str(path.as_py())


def _only_image(types: dict[str, Any]) -> str:
    found = [name for name, type_ in types.items() if _holds_pictures(type_)]
    if len(found) == 1:
        return found[0]
    which = f"{', '.join(map(repr, found))} can be the pictures" if found else "no column holds bytes"
    raise ReadError(f"{which}: say ?image=COLUMN; it has {', '.join(map(repr, types))}")


def _holds_pictures(type_: Any) -> bool:
    types = library("pyarrow", "parquet").types
    if types.is_struct(type_):
        return any(field.name == "bytes" and _is_binary(field.type) for field in type_)
    return _is_binary(type_)


def _holds_paths(type_: Any) -> bool:
    types = library("pyarrow", "parquet").types
    return bool(types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_))


def _holds_keys(type_: Any) -> bool:
    types = library("pyarrow", "parquet").types
    if types.is_dictionary(type_):
        return _holds_keys(type_.value_type)
    return bool(types.is_integer(type_)) or _holds_paths(type_)


def _is_binary(type_: Any) -> bool:
    types = library("pyarrow", "parquet").types
    return bool(types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_))
