"""What near-duplicates are found by besides a vector, packed into the floats that follow it in a row.

A row of ``[D + TAIL]`` floats travels through slots and sinks like any vector. The tail holds bytes as whole numbers,
so nothing is lost: the PDQ hash, its quality, how sharp the picture is, and a digest of its 64 x 64 pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .pdq import BYTES, luma, pdq, quality

DIGEST: Final = 16
"""Bytes of a digest."""

TAIL: Final = BYTES + DIGEST + 2
"""Floats behind a vector."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What is packed behind vectors, one row for each picture.

    Attributes:
        pdq: uint8 ``[n, 32]``.
        digest: uint8 ``[n, 16]``, BLAKE2b of the 64 x 64 pixels.
        quality: uint8 ``[n]``, 0..100; see `pdq.quality`.
        sharpness: float32 ``[n]``, variance of the Laplacian of the 64 x 64 luma.
    """

    pdq: npt.NDArray[np.uint8]
    digest: npt.NDArray[np.uint8]
    quality: npt.NDArray[np.uint8]
    sharpness: npt.NDArray[np.float32]

    def packed(self) -> npt.NDArray[np.float32]:
        """float32 ``[n, TAIL]``."""
        return np.column_stack([self.pdq, self.digest, self.quality, self.sharpness]).astype(np.float32)


def tail_of(pixels: npt.NDArray[np.uint8], axis: int = -1) -> Tail:
    """Look at pictures.

    Args:
        pixels: uint8 ``[n, 64, 64, 3]``, or ``[n, 3, 64, 64]`` with ``axis=1``.
        axis: where the channels are.
    """
    lumas = luma(pixels, axis)
    digests = [hashlib.blake2b(row.tobytes(), digest_size=DIGEST).digest() for row in np.moveaxis(pixels, axis, -1)]
    digest = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST)
    return Tail(pdq(lumas), digest, quality(lumas), sharpness(lumas))


def sharpness(lumas: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Variance of the Laplacian: of two copies the blurred one has less of it. float32 ``[n, h, w]`` to ``[n]``."""
    inner = lumas[:, 1:-1, 1:-1]
    around = lumas[:, :-2, 1:-1] + lumas[:, 2:, 1:-1] + lumas[:, 1:-1, :-2] + lumas[:, 1:-1, 2:]
    return np.asarray((around - 4 * inner).var((1, 2)), np.float32)


def unpacked(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], Tail]:
    """The vectors float32 ``[n, D]`` of rows ``[n, D + TAIL]``, and what is packed behind them."""
    tail = rows[:, -TAIL:]
    whole = tail[:, : BYTES + DIGEST + 1].astype(np.uint8)
    found = Tail(
        np.ascontiguousarray(whole[:, :BYTES]),
        np.ascontiguousarray(whole[:, BYTES : BYTES + DIGEST]),
        whole[:, -1].copy(),
        tail[:, -1].copy(),
    )
    return rows[:, :-TAIL], found
