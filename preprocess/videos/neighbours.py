"""Frames that repeat the one before: a scene that stands still. NumPy only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..pdq import INFORMATIVE, hamming

UInt8 = npt.NDArray[np.uint8]

DISTANCE: Final = 31
"""Bits of 256 in which hashes of one picture may differ."""


@dataclass(frozen=True, slots=True)
class FrameSignature:
    """What a frame is recognized by.

    Attributes:
        digest: Of the pixels of its square of 64 x 64, 20 bytes: see `digest64`.
        pdq: uint8 ``[32]``.
        quality: 0..100.
    """

    digest: bytes
    pdq: UInt8
    quality: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A frame that goes.

    Attributes:
        of: Number of the frame that it repeats, and that was kept.
        distance: Between their hashes, in bits.
        exact: Their squares are the same to the last bit.
    """

    of: int
    distance: int
    exact: bool


class Neighbours:
    """Finds frames of one video that repeat the last one that was kept; not the last one: a slow pan ends somewhere.

    Two frames are the same if their squares are, or if their hashes are near and both worth anything. What is said of
    a frame depends on the frames before it only.

    Args:
        distance: The most bits in which hashes may differ.
        quality: The least quality of both.
    """

    def __init__(self, distance: int = DISTANCE, quality: int = INFORMATIVE) -> None:
        self.distance, self.quality = distance, quality
        self._kept: tuple[int, FrameSignature] | None = None

    def see(self, number: int, frame: FrameSignature) -> Neighbour | None:
        """The next frame, in the order of time.

        Args:
            number: Its own, for `Neighbour.of`.
            frame: What it is recognized by.

        Returns:
            None: it is kept, and the next ones are compared with it.
        """
        if self._kept is not None:
            of, kept = self._kept
            exact, distance = frame.digest == kept.digest, int(hamming(frame.pdq, kept.pdq))
            if exact or (distance <= self.distance and min(frame.quality, kept.quality) >= self.quality):
                return Neighbour(of, distance, exact)
        self._kept = number, frame
        return None


def digest64(square: UInt8) -> bytes:
    """BLAKE2b of the pixels of a square uint8 ``[64, 64, 3]``, 20 bytes."""
    return hashlib.blake2b(square.tobytes(), digest_size=20).digest()
