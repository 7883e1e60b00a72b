"""High dynamic range: PQ and HLG of BT.2100 to sRGB, clipped at reference white.

Tables of one dimension and one matrix. FFmpeg's scaler gives the same within two levels, but takes seconds to build its
table of three dimensions, for each size of frames.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Floats = npt.NDArray[np.float32]

PQ: Final = 16
HLG: Final = 18
"""Numbers of H.273 for the transfer characteristics of SMPTE ST 2084 and ARIB STD-B67."""

_WHITE = 203.0
"""Candelas a square metre of reference white (BT.2408): 255 in sRGB. What is brighter is clipped."""

_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2
"""Of the display that HLG is shown on, and its system gamma."""

_LUMA: Final = np.array([0.2627, 0.6780, 0.0593], np.float32)
_TO_BT709: Final = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Of linear light with primaries of BT.2020."""

_STEPS: Final = 4096
"""Of the table from linear light to sRGB, in its square root: dark tones need the finer ones."""


def is_hdr(frame: VideoFrame) -> bool:
    """Whether it is of PQ or HLG."""
    return frame.color_trc in (PQ, HLG)


def to_srgb(rgb: npt.NDArray[np.uint16], transfer: int, *, is_bt2020: bool = True) -> npt.NDArray[np.uint8]:
    """Show HDR on an ordinary screen.

    Args:
        rgb: uint16 ``[h, w, 3]``, of the full range, as it is coded.
        transfer: `PQ` or `HLG`.
        is_bt2020: Whether its primaries are; else they are those of sRGB.

    Returns:
        uint8 ``[h, w, 3]``.
    """
    light = _light(transfer)[rgb]
    if transfer == HLG:  # a display raises luminance, not each channel
        light *= (light @ _LUMA)[..., None] ** np.float32(_HLG_GAMMA - 1)
        light *= np.float32(_HLG_PEAK / _WHITE)
    if is_bt2020:
        light = light @ _TO_BT709.T
    np.clip(light, 0, 1, out=light)
    steps = np.rint(np.sqrt(light) * (_STEPS - 1)).astype(np.uint16)
    return np.asarray(_encoded()[steps], np.uint8)


@cache
def _light(transfer: int) -> Floats:
    """Linear light of each coded value: of PQ with reference white at 1, of HLG as the scene had it, up to 1."""
    value = np.linspace(0, 1, 2**16)
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12).astype(np.float32)
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = value ** (1 / m2)
    return (10_000 / _WHITE * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)


@cache
def _encoded() -> npt.NDArray[np.uint8]:
    """sRGB of the square of each step."""
    light = np.linspace(0, 1, _STEPS) ** 2
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * encoded), np.uint8)
