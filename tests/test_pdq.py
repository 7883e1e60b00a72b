"""PDQ: the reference program's hashes, what they are blind to, and the square they share with GIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from penstock.preprocess.pdq import BYTES, SIDE, hamming, luma, luma64, pdq, quality, squash64

UInt8 = npt.NDArray[np.uint8]
PHOTOS = sorted((Path(__file__).resolve().parent.parent / "examples" / "photos").glob("*.jpg"))


def picture(seed: int, cell: int, strength: int) -> UInt8:
    """Coloured squares of some pixels on a slope, of whole numbers only: the same on every machine."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, strength, (SIDE // cell, SIDE // cell, 3))
    ramp = np.arange(SIDE)[:, None, None] + np.arange(SIDE)[None, :, None] * np.array([0, 1, -1])
    whole = np.kron(coarse, np.ones((cell, cell, 1), int)) + ramp
    return np.asarray(np.clip(whole, 0, 255), np.uint8)


def photo(path: Path) -> UInt8:
    with Image.open(path) as image:
        pixels: UInt8 = np.asarray(image.convert("RGB"))
    return pixels


def hashed(*pictures: UInt8) -> UInt8:
    return pdq(np.stack([luma64(one) for one in pictures]))


@pytest.mark.parametrize(
    ("seed", "cell", "strength", "expected", "worth"),
    [
        (0, 4, 190, "01d1a6590fe3f3a4b993c142d72c8edf035579d237293d0c1c27fc818a74beb5", 100),
        (1, 8, 120, "562bb4a50e1f14af54abac95562a326ca8d4536aab54eb50f1e04b5aa9d5b337", 100),
        (2, 16, 60, "c9c94b4b4a4ab6e6b5b4b5b4273622d2c9d94b4a4b4aa5b6b4b4b4b52627227d", 19),
        (3, 2, 30, "5076b1169ef65abd082622a3cb250907d5b11a6c6d58debe51b56f8ee48c1f27", 93),
        (4, 1, 256, "5c1522b3ffb986b00a018074605ce87a1f5fc707d33d0bdbb3988d8fd1cbc666", 100),
        (5, 32, 200, "333399998cdd8ecc2777839989dd80ec2277887bcc9d801c7737888fddcd8807", 24),
    ],
)
def test_bits_and_quality_are_the_reference_programs(
    seed: int, cell: int, strength: int, expected: str, worth: int
) -> None:
    """Of pdqhash 0.2.8 on the same 64 x 64 pixels, its bits in reverse; 64 x 64 pixels are squashed to themselves."""
    pixels = picture(seed, cell, strength)
    np.testing.assert_array_equal(squash64(pixels), pixels)
    lumas = luma(pixels)[None]
    assert pdq(lumas)[0].tobytes().hex() == expected
    assert quality(lumas).tolist() == [worth]


def test_a_hash_does_not_depend_on_the_rest_of_the_batch() -> None:
    """Whatever was computed with it, and however many."""
    lumas = np.stack([luma64(photo(path)) for path in PHOTOS[:20]])
    whole, worths = pdq(lumas), quality(lumas)
    assert whole.shape == (20, BYTES)
    assert whole.dtype == worths.dtype == np.uint8
    for size in (1, 2, 7):
        parts = [slice(start, start + size) for start in range(0, len(lumas), size)]
        np.testing.assert_array_equal(np.concatenate([pdq(lumas[part]) for part in parts]), whole)
        np.testing.assert_array_equal(np.concatenate([quality(lumas[part]) for part in parts]), worths)
    assert pdq(lumas[:0]).shape == (0, BYTES)


def test_copies_lie_near_and_other_pictures_far() -> None:
    """Half the size, another shape, grey, paler: within 31. Different photographs: nowhere near."""
    for path in PHOTOS[::7]:
        original = Image.fromarray(photo(path))
        copies = [
            original.resize((original.width // 2, original.height // 2)),
            original.resize((original.width, 2 * original.height)),
            original.convert("L").convert("RGB"),
            Image.blend(original, Image.new("RGB", original.size, (200, 200, 200)), 0.3),
        ]
        first, *others = hashed(*map(np.asarray, (original, *copies)))
        assert hamming(first, np.stack(others)).max() <= 31, path.stem
    scenes = hashed(*(photo(path) for path in PHOTOS if not path.stem.endswith("-2")))
    distances = hamming(scenes[:, None], scenes[None])
    assert (distances.diagonal() == 0).all()
    assert distances[~np.eye(len(scenes), dtype=bool)].min() > 60


def test_a_mirrored_picture_has_the_odd_frequencies_negated() -> None:
    """So its bits are those of the even columns, and the opposite of the odd ones, but about the median."""
    pixels = luma(picture(0, 4, 190))
    bits, mirrored = (np.unpackbits(pdq(one[None]), axis=1).reshape(16, 16) for one in (pixels, pixels[:, ::-1]))
    assert (bits == mirrored)[:, 1::2].mean() > 0.9
    assert (bits != mirrored)[:, 0::2].mean() > 0.9


def test_flat_pictures_are_worth_nothing() -> None:
    """Of one colour: 0. A slow slope hardly more."""
    flat = np.full((1, SIDE, SIDE), 77, np.float32)
    slope = np.broadcast_to(np.linspace(0, 255, SIDE, dtype=np.float32), (1, SIDE, SIDE))
    assert quality(flat).tolist() == [0]
    assert quality(slope)[0] < 50


def test_distances_are_counted_bit_by_bit_and_broadcast() -> None:
    """Against Python's own counting."""
    rng = np.random.default_rng(2)
    some, others = (rng.integers(0, 256, (count, BYTES), dtype=np.uint8) for count in (3, 4))
    expected = [[(int.from_bytes(a) ^ int.from_bytes(b)).bit_count() for b in others] for a in some]
    assert hamming(some[:, None], others).tolist() == expected
    assert hamming(some[0], ~some[0]) == 256


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3000, 2), (64, 64), (481, 17)])
def test_any_shape_is_squashed(shape: tuple[int, int]) -> None:
    """To one colour where the picture has one."""
    squashed = squash64(np.full((*shape, 3), (10, 200, 30), np.uint8))
    assert squashed.shape == (SIDE, SIDE, 3)
    assert (squashed == (10, 200, 30)).all()


def test_luma_is_taken_of_both_layouts_of_a_slot() -> None:
    """Channels last or first, one picture or many."""
    pictures = np.stack([picture(seed, 8, 200) for seed in range(3)])
    lumas = luma(pictures)
    assert lumas.dtype == np.float32
    np.testing.assert_array_equal(luma(pictures.transpose(0, 3, 1, 2), axis=1), lumas)
    np.testing.assert_array_equal(luma(pictures[1]), lumas[1])
    assert luma(np.full((1, 1, 3), 255, np.uint8)).item() == pytest.approx(255, abs=1e-4)
