"""What a TIFF says of its samples and Pillow does not act on: how many bits are used, and that 0 is white."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from PIL import Image

_BITS, _PHOTOMETRIC, _MAXIMUM = 258, 262, 281
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
    told: dict[int, int] = {}
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        told[_PHOTOMETRIC] = _MIN_IS_WHITE
    if (top := _top(tags)) is not None:
        told[_MAXIMUM] = top
    return told


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
