"""Frames that repeat the last one that was kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from penstock.preprocess.pdq import BYTES, luma, pdq, quality, squash64
from penstock.preprocess.videos.neighbours import FrameSignature, Neighbour, Neighbours, digest64

UInt8 = npt.NDArray[np.uint8]
PHOTOS = sorted((Path(__file__).resolve().parent.parent / "examples" / "photos").glob("*.jpg"))


def photo(path: Path) -> UInt8:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def signed(pixels: UInt8) -> FrameSignature:
    square = squash64(pixels)
    lumas = luma(square)[None]
    return FrameSignature(digest64(square), pdq(lumas)[0], int(quality(lumas)[0]))


def bits(count: int, worth: int = 100, digest: bytes = b"") -> FrameSignature:
    """A hash with so many bits set, of a square of its own if no other is said."""
    hashed = np.packbits(np.arange(8 * BYTES) < count)
    return FrameSignature(digest or bytes([count, worth]), hashed, worth)


def kept(frames: list[FrameSignature], neighbours: Neighbours | None = None) -> list[int]:
    neighbours = neighbours or Neighbours()
    return [number for number, frame in enumerate(frames) if neighbours.see(number, frame) is None]


def test_a_scene_that_stands_still_is_one_frame() -> None:
    """Grain and brightness change, the scene does not; the next one is another, and the first one again is new."""
    rng = np.random.default_rng(0)

    def grain(pixels: UInt8, light: float) -> UInt8:
        return np.asarray(np.clip(pixels * light + rng.normal(0, 4, pixels.shape), 0, 255), np.uint8)

    one, other = photo(PHOTOS[0]), photo(PHOTOS[4])
    frames = [grain(one, 1), grain(one, 1.1), grain(one, 0.9), grain(other, 1), grain(other, 1), grain(one, 1)]
    assert kept([signed(frame) for frame in frames]) == [0, 3, 5]


def test_frames_are_held_against_the_last_one_that_was_kept() -> None:
    """Not against the one before: a slow pan ends somewhere else. 31 bits are near, 32 are not."""
    assert kept([bits(0), bits(20), bits(31), bits(32), bits(63), bits(64)]) == [0, 3, 5]
    neighbours = Neighbours()
    assert neighbours.see(7, bits(0)) is None
    assert neighbours.see(9, bits(20)) == Neighbour(7, 20, exact=False)
    assert kept([bits(0), bits(3), bits(6)], Neighbours(distance=4)) == [0, 2]


def test_hashes_that_prove_nothing_count_only_where_pixels_are_the_same() -> None:
    """One of two is below quality 50: kept. The same square to the last bit: gone, whatever it is worth."""
    assert kept([bits(0, 49), bits(1, 100), bits(2, 49), bits(3, 50)]) == [0, 1, 2, 3]
    assert kept([bits(0, 50), bits(1, 50)]) == [0]
    black = signed(np.zeros((90, 160, 3), np.uint8))
    assert black.quality == 0
    neighbours = Neighbours()
    assert neighbours.see(0, black) is None
    assert neighbours.see(1, black) == Neighbour(0, 0, exact=True)


def test_a_digest_is_of_the_pixels() -> None:
    """However they lie in memory."""
    square = squash64(photo(PHOTOS[0]))
    turned = np.asfortranarray(square)
    assert digest64(turned) == digest64(square)
    turned[0, 0, 0] ^= 1
    assert digest64(turned) != digest64(square)
    assert len(digest64(square)) == 20
