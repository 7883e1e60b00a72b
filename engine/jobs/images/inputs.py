"""What the Python API takes as pictures, ids and metadata, brought into the one form that travels."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Final, cast

import numpy as np
from PIL import Image

from ....errors import ConfigError, DecodeError
from ....preprocess import Source
from ....preprocess.decode.exif import upright_image
from ....preprocess.decode.modes import is_deep, with_alpha, without_unused_alpha
from ....preprocess.decode.tiff import sample_tags
from ....sinks import row_key
from ....sinks.rows import row_hash
from ...sources import absolute, key_of
from ..common.payloads import BATCH_BYTES, grouped, nbytes_of
from .batches import Batch, Picture

_STACKED: Final = 4
"""Axes of an array that is surely several pictures."""

_LONG: Final = 200
"""A text of so many characters is not repeated in a message."""


def as_source(value: Any) -> Source:
    """A picture as the workers take it.

    Args:
        value: a path (str or PathLike), the bytes of a picture file, a PIL image, or pixels ``(H, W[, C])``.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(value, (str, bytes, np.ndarray)):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(os.fspath(value))
    if isinstance(value, Image.Image):
        return _image_source(value)
    raise ConfigError(f"a picture must be a path, bytes, a PIL image or an array, not {type(value).__name__}")


def _image_source(image: Image.Image) -> Source:
    """A PIL image as its file would be read: upright, with what its metadata says of its colours and samples.

    Plain pixels as an array; what needs interpreting (palette, profile, transparent colour...) as a lossless file.
    """
    image.load()  # a TIFF turns itself meanwhile
    tags = sample_tags(image)
    picture = upright_image(without_unused_alpha(image))
    if picture.has_transparency_data and not is_deep(picture):
        picture = with_alpha(picture)
    interpreted: dict[str | tuple[int, int], Any] = {  # Pillow's type
        name: picture.info[name] for name in ("icc_profile", "transparency") if name in picture.info
    }
    plain = picture.mode in {"L", "RGB", "RGBA"} or is_deep(picture)
    if plain and not interpreted and not tags:
        return np.asarray(picture)
    picture = picture.copy()  # of a picture alone: its file's metadata is not to be saved beside what is chosen here
    picture.info = interpreted
    file = io.BytesIO()
    try:
        if "transparency" in interpreted:
            picture.save(file, "PNG", compress_level=1)
        else:
            picture.save(file, "TIFF", compression="raw", tiffinfo=tags)
    except (OSError, KeyError, ValueError):  # a mode no file format holds, e.g. HSV
        return np.asarray(picture.convert("RGB"))
    return file.getvalue()


def source_of(value: Any) -> Source:
    """As `as_source`, for one of many: what cannot be a picture is the error that its row comes to."""
    try:
        return as_source(value)
    except ConfigError as error:
        return DecodeError(str(error))
    except Exception as error:  # noqa: BLE001  (a Pillow picture reads its file only now; a PathLike may do anything)
        return DecodeError(f"{type(value).__name__} that cannot be read: {error}")


def check_inputs(inputs: object, call: str) -> None:
    """Refuse what is no collection of pictures, and would be taken apart: a string into letters, an array into rows.

    Args:
        inputs: what was given.
        call: the function that it was given to.

    Raises:
        ConfigError: it is one picture, or nothing that can be iterated over; says what to write instead.
    """
    if isinstance(inputs, (str, os.PathLike)):
        example = repr(os.fspath(cast("str", inputs)))
        raise ConfigError(
            f"{call} takes a list of pictures, not one {'string' if isinstance(inputs, str) else 'path'}:"
            f" {call}([{example if len(example) < _LONG else 'path'}]), or embed_images for a folder"
        )
    if isinstance(inputs, (bytes, bytearray, memoryview, Image.Image)):
        raise ConfigError(
            f"{call} takes a list of pictures, not one {type(inputs).__name__}: {call}([picture]) for a single one"
        )
    if isinstance(inputs, np.ndarray) and inputs.ndim < _STACKED:  # [n, h, w] and [h, w, c] look the same
        raise ConfigError(
            f"{call} takes a list of pictures, not one array of shape {inputs.shape}: {call}([array]) for a single"
            f" picture, {call}(list(array)) for several"
        )
    if not isinstance(inputs, Iterable):
        raise ConfigError(
            f"{call} takes a list of pictures (paths, bytes of picture files, PIL images, arrays), not {inputs!r:.100}"
        )


def in_step(
    inputs: Iterable[Any], ids: Iterable[Any] | None, metadata: Iterable[Any] | None, call: str
) -> Iterator[tuple[int, Any, Any, Any]]:
    """``(position, input, id, metadata)`` of each input; id and metadata are None where none are given.

    Raises:
        ConfigError: the inputs are no collection of pictures; ids or metadata are not as many (at once where the
            numbers are known before).
    """
    check_inputs(inputs, call)
    given = {"inputs": inputs, "ids": ids, "metadata": metadata}
    columns = {name: column for name, column in given.items() if column is not None}
    said: dict[str, object] = {**columns}
    for name, column in said.items():
        if not isinstance(column, Iterable):
            raise ConfigError(f"{name}: {call} takes a list with one for each picture, not {column!r:.100}")
    lengths = {name: len(column) for name, column in columns.items() if isinstance(column, Sized)}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"there must be one of each per picture, but there are {_counts(lengths)}")
    return _in_step(columns)


def _in_step(columns: dict[str, Iterable[Any]]) -> Iterator[tuple[int, Any, Any, Any]]:
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    position = 0
    while True:
        try:
            row = dict(zip(names, next(rows), strict=True))
        except StopIteration:
            return
        except ValueError as error:
            raise ConfigError(f"after {position} pictures one of {', '.join(names)} ended before the others") from error
        yield position, row["inputs"], row.get("ids"), row.get("metadata")
        position += 1


def _counts(lengths: dict[str, int]) -> str:
    return ", ".join(f"{length} {name}" for name, length in lengths.items())


def pictures_of(
    inputs: Iterable[Any], ids: Iterable[Any] | None, metadata: Iterable[Any] | None, call: str
) -> Iterator[Picture]:
    """The pictures of a call of ``insert_images*``, in order; their ordinals are their positions.

    Raises:
        ConfigError: as `in_step`.
    """
    return (_picture(*row) for row in in_step(inputs, ids, metadata, call))


def _picture(position: int, value: Any, given: Any, metadata: Any) -> Picture:
    if metadata is not None and not isinstance(metadata, dict):
        raise ConfigError(f"metadata of picture {position} must be a dict, not {type(metadata).__name__}")
    source = source_of(value)
    if isinstance(source, str):
        source = absolute(source)  # links stay: the key is the name the user knows
    path = key_of(source) if isinstance(source, str) else None
    # Never empty: a failure without a key is about the whole batch.
    key = str(given) if given not in (None, "") else path or _content_key(position, source)
    # The same hash as for an item of a folder: a picture is the same row however it was named.
    id_ = given if given is not None else row_key(source if isinstance(source, str) else key)
    return Picture(key, id_, source, path, cast("dict[str, Any]", metadata) or {}, position)


def _content_key(position: int, source: Source) -> str:
    """The same for the same content; what has none is known by its position."""
    if isinstance(source, np.ndarray) and not source.dtype.hasobject:
        digest = row_hash(repr((source.dtype.str, source.shape)).encode())
        digest.update(np.ascontiguousarray(source).reshape(-1).view(np.uint8).data)  # no copy of maybe gigabytes
        return f"content:{digest.hexdigest()}"
    if isinstance(source, bytes):
        return f"content:{row_key(source)}"
    return f"input:{position}"


def batched(pictures: Iterable[Picture], size: int, most: int = BATCH_BYTES) -> Iterator[Batch]:
    """Batches of up to ``size`` pictures, and up to ``most`` bytes of what is in memory of them."""
    return (Batch(group) for group in grouped(pictures, size, lambda picture: nbytes_of(picture.source), most))


def reference_to(function: Callable[..., Any]) -> str:
    """``module:name`` of a function that another process can import.

    Raises:
        ConfigError: it is a lambda, a local function, or lives in ``__main__``.
    """
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    found: Any = None
    if module and module != "__main__":
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
    if found is not function:
        raise ConfigError(
            f"{name or function!r} cannot be imported by the worker processes: "
            "put it at the top level of a module of its own and give that, or 'module:function'"
        )
    return f"{module}:{name}"
