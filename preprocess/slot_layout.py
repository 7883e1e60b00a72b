"""The slots of pictures: pixels, and room for their embeddings beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..shm import ArraySpec, SlotLayout, SlotView

PIXELS, EMBEDDINGS = "pixels", "embeddings"
PIXEL_DTYPES = ("float32", "float16", "uint8")


def pixel_layout(
    rows: int, pixel_shape: tuple[int, ...], pixel_dtype: str = "float32", dimension: int = 0
) -> SlotLayout:
    """A slot for a batch of pictures: pixels ``[rows, *pixel_shape]``, embeddings ``[rows, dimension]`` float32.

    Args:
        rows: the most pictures in a batch.
        pixel_shape: shape of one picture, e.g. ``(3, 224, 224)``.
        pixel_dtype: ``float32``, ``float16`` or ``uint8``.
        dimension: floats of one picture's embedding; 0 for no embeddings.

    Raises:
        ConfigError: a size that is not positive, or another dtype.
    """
    if not pixel_shape or min(pixel_shape) < 1:
        raise ConfigError(f"pixel_shape must be positive sizes, not {pixel_shape}")
    if pixel_dtype not in PIXEL_DTYPES:
        raise ConfigError(f"pixel_dtype must be one of {', '.join(PIXEL_DTYPES)}, not {pixel_dtype!r}")
    if dimension < 0:
        raise ConfigError(f"dimension must not be negative, not {dimension}")
    return SlotLayout(
        rows, (ArraySpec(PIXELS, pixel_shape, pixel_dtype), ArraySpec(EMBEDDINGS, (dimension,), "float32"))
    )


def dimension_of(layout: SlotLayout) -> int:
    """Floats of one picture's embedding in a slot of pictures."""
    return layout[EMBEDDINGS].shape[0]


@dataclass(frozen=True, slots=True)
class PixelView:
    """The arrays of a slot of pictures, without a copy.

    Attributes:
        pixels: ``[B, *pixel_shape]``, the layout's dtype.
        embeddings: ``[B, D]`` float32; ``[B, 0]`` if there are none.
    """

    pixels: NDArray[Any]
    embeddings: NDArray[np.float32]


def pixel_view(arrays: SlotView) -> PixelView:
    """A slot's arrays, of a layout that `pixel_layout` made."""
    return PixelView(arrays[PIXELS], arrays[EMBEDDINGS])
