"""PDQ: perceptual hashes of 256 bits, and how much a picture says. NumPy only.

PDQ is Facebook's hash for near-duplicates (ThreatExchange, 2019): the signs of the 16 x 16 lowest frequencies of a
64 x 64 luma about their median. Copies that were resized, recompressed or recoloured lie within 31 of 256 bits,
pictures that have nothing in common about 128 apart. On a 64 x 64 luma the bits are those of the reference program, in
the opposite order of bits.

The square is the one the GIST embedder looks at (squashed, not cropped), so one resize serves both: `squash64` makes
the pixels, or they are a slot's pixels of 64 x 64, and `luma` is what is hashed. Hashes of one collection should be
made from one kind of square: those of two resizes differ by up to 6 bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIDE: Final = 64
"""Side of the square that is hashed, in pixels."""

BYTES: Final = 32
"""Of a hash."""

INFORMATIVE: Final = 50
"""Quality from which on a hash, or equal squares, are evidence that pictures are the same: below it they are flat."""

_WEIGHTS: Final = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601
_KEPT: Final = 16  # frequencies each way, without the mean

_DCT: Final = (
    np.sqrt(2 / SIDE) * np.cos(np.pi / SIDE * np.outer(np.arange(1, _KEPT + 1), np.arange(SIDE) + 0.5))
).astype(np.float32)
"""``[16, 64]``, the second to seventeenth rows of the DCT-II matrix."""


def squash64(rgb: UInt8) -> UInt8:
    """The whole picture in a square of 64 x 64, whatever its shape: bicubic, after a reduction by a whole factor.

    Args:
        rgb: uint8 ``[height, width, 3]``, of any size from 1 x 1.

    Returns:
        uint8 ``[64, 64, 3]``, its own memory.
    """
    # The gap costs a picture of 720 lines 1.1 ms instead of 5.2, and at most 4 bits of its hash.
    from PIL import Image  # a Triton server, which has GIST from here, has no Pillow

    small = Image.fromarray(rgb).resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.array(small)


def luma(rgb: UInt8, axis: int = -1) -> Floats:
    """Brightness by Rec. 601, 0..255.

    Args:
        rgb: uint8, with three channels along `axis`: ``[..., H, W, 3]``, or ``[B, 3, H, W]`` with ``axis=1``.
        axis: Where the channels are.

    Returns:
        float32, `rgb` without that axis.
    """
    red, green, blue = np.moveaxis(rgb, axis, 0)
    # Not a matrix product: a sum in this order is the same to the last bit on every machine.
    return np.asarray(red * _WEIGHTS[0] + green * _WEIGHTS[1] + blue * _WEIGHTS[2], np.float32)


def luma64(rgb: UInt8) -> Floats:
    """What is hashed of a picture: ``luma(squash64(rgb))``.

    Args:
        rgb: uint8 ``[height, width, 3]``, of any size from 1 x 1.

    Returns:
        float32 ``[64, 64]``, 0..255.
    """
    return luma(squash64(rgb))


def pdq(lumas: Floats) -> UInt8:
    """Hash pictures: bit ``16 * i + j`` is that of vertical frequency ``i + 1`` and horizontal frequency ``j + 1``.

    The hash of a picture does not depend on the others of the batch.

    Args:
        lumas: float32 ``[B, 64, 64]``, 0..255.

    Returns:
        uint8 ``[B, 32]``.
    """
    spectra = (_DCT @ lumas @ _DCT.T).reshape(len(lumas), _KEPT * _KEPT)
    return np.packbits(spectra > np.median(spectra, axis=1, keepdims=True), axis=1)


def quality(lumas: Floats) -> UInt8:
    """How much there is to recognize: 0 for a flat picture, 100 for many strong edges. Below 50 a hash proves nothing.

    Args:
        lumas: float32 ``[B, 64, 64]``, 0..255.

    Returns:
        uint8 ``[B]``, 0..100.
    """
    edges = _edges(np.diff(lumas, axis=1)) + _edges(np.diff(lumas, axis=2))
    return np.asarray(np.minimum(100, edges // 90), np.uint8)


def hamming(a: UInt8, b: UInt8) -> npt.NDArray[np.int64]:
    """In how many bits hashes differ.

    Args:
        a: uint8 ``[..., 32]``.
        b: The same; the shapes before the last axis are broadcast.

    Returns:
        int64 ``[...]``, 0..256.
    """
    ours, theirs = np.ascontiguousarray(a).view(np.uint64), np.ascontiguousarray(b).view(np.uint64)
    return np.asarray(np.bitwise_count(ours ^ theirs).sum(axis=-1, dtype=np.int64))


def _edges(steps: Floats) -> Floats:
    """The sum of steps in whole percents of full contrast, one for each picture."""
    return np.asarray(np.trunc(np.abs(steps) * 100 / 255).sum((1, 2)), np.float32)
