"""GIST against an independent computation from the published formula, and as a finder of near-duplicates."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from penstock.engine.embedders import Gist, parse_embedder
from penstock.errors import ConfigError
from penstock.testing.embedders import PlainPixels, batch

Array = NDArray[Any]
PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


def embed(embedder: Gist, spec: PlainPixels, pixels: Array) -> NDArray[np.float32]:
    with embedder:
        embedder.open(spec, len(pixels))
        view = batch(embedder, pixels)
        embedder.embed(view, len(pixels))
    return view.embeddings


def photos(side: int) -> Array:
    """Six photographs squashed to ``[6, side, side, 3]`` uint8."""
    return np.stack([np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in originals()])


def originals() -> list[Image.Image]:
    names = ("astronaut-1", "cat-1", "coffee-cup-1", "rocket-launch-1", "cameraman-1", "temple-china-1")
    return [Image.open(PHOTOS / f"{name}.jpg").convert("RGB") for name in names]


def stored(spec: PlainPixels, photo: Array) -> Array:
    """Pixels as the preprocessing would store these ``[n, S, S, 3]`` uint8 pictures."""
    pixels = photo.astype(np.float64)
    if spec.dtype != "uint8" and spec.mean is not None:
        pixels = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
    if spec.layout == "NCHW":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels.astype(spec.dtype))


def reference(photo: Array, size: int) -> Array:
    """GIST of one ``[S, S, 3]`` picture of 0..255 in float64 with np.fft, step by step as published."""
    grey = photo.astype(np.float64).mean(axis=2)
    common = int(np.lcm(len(grey), size))
    fine = np.kron(grey, np.ones((common // len(grey),) * 2))
    grey = fine.reshape(size, common // size, size, common // size).mean(axis=(1, 3))
    prefiltered = reference_prefilter(grey)

    steps = np.arange(-size // 2, size // 2)
    fx, fy = np.meshgrid(steps, steps)
    radius = np.fft.fftshift(np.sqrt(fx**2 + fy**2))
    theta = np.fft.fftshift(np.angle(fx + 1j * fy))
    spectrum = np.fft.fft2(prefiltered)
    features = []
    for scale in range(4):
        for orientation in range(8):
            turned = theta + np.pi / 8 * orientation
            turned = turned + 2 * np.pi * (turned < -np.pi) - 2 * np.pi * (turned > np.pi)
            width = 16 * 8**2 / 32**2
            transfer = np.exp(
                -10 * 0.35 * (radius / size / (0.3 / 1.85**scale) - 1) ** 2 - 2 * width * np.pi * turned**2
            )
            response = np.abs(np.fft.ifft2(spectrum * transfer))
            step = size // 4
            for row in range(4):
                for column in range(4):
                    block = response[row * step : (row + 1) * step, column * step : (column + 1) * step]
                    features.append(block.mean() + 1e-5)
    vector: Array = np.array(features) / np.linalg.norm(features)
    return vector


def reference_prefilter(grey: Array) -> Array:
    """Local contrast normalization through two-dimensional Fourier transforms of the mirrored picture."""
    wide = np.pad(np.log(grey + 1), 5, mode="symmetric")
    side = len(wide)
    steps = np.arange(-side // 2, side // 2)
    fx, fy = np.meshgrid(steps, steps)
    low = np.fft.fftshift(np.exp(-(fx**2 + fy**2) / (4 / np.sqrt(np.log(2))) ** 2))
    high = wide - np.real(np.fft.ifft2(np.fft.fft2(wide) * low))
    deviation = np.sqrt(np.abs(np.fft.ifft2(np.fft.fft2(high**2) * low)))
    normalized: Array = (high / (0.2 + deviation))[5:-5, 5:-5]
    return normalized


CASES = [
    (64, PlainPixels(64)),
    (64, PlainPixels(64, layout="NHWC")),
    (32, PlainPixels(32)),
    (64, PlainPixels(224)),
    (32, PlainPixels(50, layout="NHWC")),
    (64, PlainPixels(64, dtype="float32")),
    (64, PlainPixels(64, dtype="float32", mean=(0.48, 0.45, 0.40), std=(0.26, 0.27, 0.28))),
    (64, PlainPixels(96, dtype="float32", layout="NHWC", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))),
    (64, PlainPixels(64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))),
]


@pytest.mark.parametrize(("size", "spec"), CASES)
def test_matches_an_independent_computation(size: int, spec: PlainPixels) -> None:
    """Vectors are those of the published formula in float64, whatever form the pixels are stored in."""
    photo = photos(spec.size)
    vectors = embed(Gist(size), spec, stored(spec, photo))
    for vector, picture in zip(vectors, photo, strict=True):
        np.testing.assert_allclose(vector, reference(picture, size), rtol=1e-4, atol=1e-6)


def test_half_precision_pixels_are_close() -> None:
    """float16 pixels lose bits before they come here; the direction of the vector hardly changes."""
    spec = PlainPixels(64, dtype="float16", mean=(0.48, 0.45, 0.40), std=(0.26, 0.27, 0.28))
    photo = photos(64)
    vectors = embed(Gist(), spec, stored(spec, photo))
    for vector, picture in zip(vectors, photo, strict=True):
        assert vector @ reference(picture, 64) > 0.9995


def test_vectors_have_unit_length() -> None:
    """COSINE, IP and L2 rank alike on unit vectors."""
    vectors = embed(Gist(), PlainPixels(64), stored(PlainPixels(64), photos(64)))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("size", [32, 64])
def test_blank_pictures_have_one_common_finite_vector(size: int) -> None:
    """A blank page has no texture; it must not get a vector of rounding noise, nor NaN."""
    levels = np.array([0, 1, 17, 128, 255], np.uint8)
    pixels = np.broadcast_to(levels[:, None, None, None], (5, 3, size, size)).copy()
    vectors = embed(Gist(size), PlainPixels(size), pixels)
    assert np.isfinite(vectors).all()
    assert (vectors @ vectors.T).min() > 0.99


def _jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=20)
    return Image.open(buffer).convert("RGB")


def _crop(image: Image.Image) -> Image.Image:
    w, h = image.size
    return image.crop((w // 20, h // 20, w - w // 20, h - h // 20))


VARIANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": _jpeg,
    "crop": _crop,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_near_duplicates_are_nearer_than_other_pictures(variant: str) -> None:
    """Each altered photograph finds its original first, by a clear margin."""
    images = [*originals(), *(VARIANTS[variant](image) for image in originals())]
    pixels = np.stack([np.asarray(i.resize((64, 64), Image.Resampling.BICUBIC)) for i in images])
    vectors = embed(Gist(), PlainPixels(64, layout="NHWC"), pixels)
    similarity = vectors[6:] @ vectors[:6].T
    own = np.diag(similarity).copy()
    np.fill_diagonal(similarity, -1)
    assert own.min() > 0.9
    assert (own - similarity.max(axis=1)).min() > 0.05


def test_compiles_once_for_all_row_counts(caplog: pytest.LogCaptureFixture) -> None:
    """The last, smaller batch of a job must not cost another compile."""
    embedder = Gist(32)
    embedder.open(PlainPixels(32), 4)
    view = batch(embedder, np.zeros((4, 3, 32, 32), np.uint8))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        embedder.embed(view, 4)
        assert "Compiling" in caplog.text
        caplog.clear()
        for rows in (1, 2, 3, 4):
            embedder.embed(view, rows)
    assert "ompil" not in caplog.text


@pytest.mark.parametrize(
    "spec", ["gist:16", "gist:66", "gist:512", "gist:big", "gist:" + "9" * 5000, "gist:-64", "gist?size=64"]
)
def test_wrong_sizes_are_refused_by_name(spec: str) -> None:
    """A working size outside the allowed ones is a setting error."""
    with pytest.raises(ConfigError, match="gist"):
        parse_embedder(spec)


@pytest.mark.parametrize(("size", "way_out"), [(48, ", or use the embedder gist:48$"), (50, "gist:48$"), (20, "more$")])
def test_small_pixels_are_refused_with_the_ways_out(size: int, way_out: str) -> None:
    """Pixels below the working size would have to be invented; the message says which knobs help, if they do."""
    with pytest.raises(ConfigError, match="raise --image-size to 64 or .*" + way_out):
        Gist().check(PlainPixels(size))


def test_wants_small_squashed_bytes() -> None:
    """Left alone, the preprocessing makes exactly what costs least here."""
    wants = Gist(96).wants
    assert (wants.size, wants.squash, wants.dtype, wants.layout) == (96, True, "uint8", None)
