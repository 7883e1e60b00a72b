"""What a TIFF says and Pillow does not act on: how many bits of a sample are used, that 0 is white, that it is raw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, cast

if TYPE_CHECKING:
    from PIL import Image

_BITS, _PHOTOMETRIC, _MAXIMUM = 258, 262, 281
_SUBFILE, _MAKE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 271, 330, 50706
_ENTRY_BYTES: Final = 12
_MIN_IS_WHITE: Final = 0
_DEPTHS: Final = frozenset(2**bits - 1 for bits in range(9, 16))


def sample_tags(image: Image.Image) -> dict[int, int]:
    """The tags of a TIFF of 16-bit or wider samples that say how these are meant; empty for any other picture.

    They survive saving: ``image.save(file, "TIFF", tiffinfo=sample_tags(image))`` gives a picture with the same ones.

    Args:
        image: opened by Pillow, loaded or not.

    Returns:
        ``{262: 0}`` where the smallest sample is white, ``{281: top}`` where fewer than 16 bits are used.
    """
    tags = cast("Mapping[int, Any]", getattr(image, "tag_v2", {}))
    if not tags or not image.mode.startswith(("I", "F")):
        return {}
    facts: dict[int, int] = {}
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        facts[_PHOTOMETRIC] = _MIN_IS_WHITE
    if (top := _top(tags)) is not None:
        facts[_MAXIMUM] = top
    return facts


def is_min_white(tags: Mapping[int, int]) -> bool:
    """Whether these `sample_tags` say that the smallest sample is white."""
    return tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE


def top_sample(tags: Mapping[int, int]) -> int | None:
    """The largest sample there can be, by these `sample_tags`; None where the type says it."""
    return tags.get(_MAXIMUM)


def _top(tags: Mapping[int, Any]) -> int | None:
    (bits, *_), (most, *_) = _tuple(tags.get(_BITS)), _tuple(tags.get(_MAXIMUM))
    if isinstance(bits, int) and 8 < bits < 16:
        return int(2**bits - 1)
    # Microscopes keep 12 bits in 16 and say so here. Any other value is a statistic of this one picture, and no range.
    return most if isinstance(most, int) and most in _DEPTHS else None


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) and value else (value,)


def camera_raw(data: bytes | memoryview) -> str | None:
    """The kind of camera raw file that a TIFF is by its first directory; None for a picture.

    What Pillow would decode of one is the small preview that stands first.

    Args:
        data: the whole file, or its beginning with its first directory.

    Returns:
        ``DNG``, or ``TIFF/EP`` for the formats of other cameras (NEF, ARW...).
    """
    tags = _first_directory(data)
    if _DNG_VERSION in tags:
        return "DNG"
    is_preview = tags.get(_SUBFILE, 0) & 1 and _MAKE in tags and _SUB_DIRECTORIES in tags
    return "TIFF/EP" if is_preview else None


def _first_directory(data: bytes | memoryview) -> dict[int, int]:
    """Tags with their four bytes of value or offset, as far as the data goes. None of a BigTIFF: no camera has it."""
    if data[2:4] not in (b"*\0", b"\0*"):
        return {}
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    start = number(4, 4)
    entries = range(start + 2, start + 2 + _ENTRY_BYTES * number(start, 2), _ENTRY_BYTES)
    return {number(at, 2): number(at + 8, 4) for at in entries if at + _ENTRY_BYTES <= len(data)}
