"""Sets of generated pictures: seeded, made once per folder, as large in bytes as what cameras and web crawls give.

Each picture is a random crop of a real photograph, scaled, sometimes mirrored, brightened or darkened, with
sensor-like noise added *after* the scaling: without the noise a scaled-up crop is so smooth that it compresses to a
third of the bytes and decodes in half the time, and every figure measured on it would flatter.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from ..errors import ConfigError

UInt8 = npt.NDArray[np.uint8]

PHOTOS = Path(__file__).resolve().parent.parent / "examples" / "photos"
"""Real photographs, where the project is run from its checkout; generated textures stand in for them elsewhere."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the pictures of a set look like.

    Attributes:
        sizes: ``(width, height)`` in pixels, used in turn.
        noise: standard deviation of the noise at mid grey, 0..255; set so that the files have the bytes of real ones.
        quality: of the JPEG encoder; chroma is subsampled 4:2:0.
    """

    sizes: tuple[tuple[int, int], ...]
    noise: float
    quality: int = 90


RECIPES = {
    "imagenet500": Recipe(((500, 375),), 6.2),
    "camera2048": Recipe(((2048, 1536),), 5.8),
    "mixed": Recipe(((320, 240), (375, 500), (500, 375), (640, 480), (1024, 768), (1600, 1200)), 5.5),
}
"""The sets, by name: about 60 KB a picture, about 650 KB a picture, and six sizes in turn."""


def make_set(name: str, folder: Path, n: int, seed: int = 0) -> list[str]:
    """Make a set of pictures on disk, or take what an earlier call has left there.

    Picture ``i`` depends on ``(name, seed, i)`` and the source photographs only, so a folder can be grown.

    Args:
        name: one of ``RECIPES``.
        folder: where; the pictures go to ``folder/NAME-SEED/00000.jpg`` and so on.
        n: how many.
        seed: another seed makes other pictures.

    Returns:
        Paths of the first ``n`` pictures, in order.

    Raises:
        ConfigError: there is no set of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"set={name!r}: there is no such set of pictures; known are {', '.join(RECIPES)}")
    target = folder / f"{name}-{seed}"
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{index:05d}.jpg" for index in range(n)]
    for index, path in enumerate(paths):
        if not path.exists():
            _publish(path, encode(name, index, seed))
    return [str(path) for path in paths]


def link_set(paths: Sequence[str], folder: Path, n: int) -> Path:
    """A folder of ``n`` names for the given files (hard links in turn): as many inputs as wanted at no cost on disk.

    Returns:
        The folder, with subfolders of a thousand names each. It must be on the file system of the files.
    """
    for index in range(n):
        name = folder / f"{index // 1000:03d}" / f"{index:06d}.jpg"
        if not name.exists():
            name.parent.mkdir(parents=True, exist_ok=True)
            os.link(paths[index % len(paths)], name)
    return folder


def encode(name: str, index: int, seed: int = 0) -> bytes:
    """One picture of a set, as a JPEG file."""
    recipe = RECIPES[name]
    rng = np.random.default_rng((seed, list(RECIPES).index(name), index))
    picture = _view(rng, recipe.sizes[index % len(recipe.sizes)])
    buffer = io.BytesIO()
    Image.fromarray(_noisy(picture, rng, recipe.noise)).save(
        buffer, "JPEG", quality=recipe.quality, subsampling="4:2:0"
    )
    return buffer.getvalue()


def _publish(path: Path, data: bytes) -> None:
    """Whole or not at all: a folder of pictures may be shared by runs."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def _view(rng: np.random.Generator, size: tuple[int, int]) -> UInt8:
    """A random crop of a source, scaled to ``size``, maybe mirrored, a little brighter or darker."""
    photos = photographs()
    photo = photos[int(rng.integers(len(photos)))]
    width, height = photo.size
    ratio = size[0] / size[1]
    crop_width = min(width, height * ratio) * float(rng.uniform(0.7, 1.0))
    left = float(rng.uniform(0, width - crop_width))
    top = float(rng.uniform(0, height - crop_width / ratio))
    box = (left, top, left + crop_width, top + crop_width / ratio)
    view = photo.resize(size, Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(ImageEnhance.Brightness(view).enhance(float(rng.uniform(0.8, 1.2))))


def _noisy(picture: UInt8, rng: np.random.Generator, deviation: float) -> UInt8:
    """Add noise that grows with the square root of the light, as photons have it."""
    height, width = picture.shape[:2]
    field = _noise_field()
    top, left = (int(rng.integers(field.shape[axis] - size)) for axis, size in ((0, height), (1, width)))
    noise = field[top : top + height, left : left + width]
    light = np.sqrt(np.arange(256, dtype=np.float32) / 128 + 0.05) * deviation
    return (picture + noise * light[picture] + 0.5).clip(0, 255).astype(np.uint8)


@cache
def _noise_field() -> npt.NDArray[np.float32]:
    """Standard normal noise to cut pieces from: drawing 9 million numbers a picture would take longer than all else."""
    return np.random.default_rng(2001).standard_normal((1800, 2400, 3), dtype=np.float32)


@cache
def photographs() -> tuple[Image.Image, ...]:
    """The photographs (second views left out), or textures where there are none."""
    paths = sorted(path for path in PHOTOS.glob("*.jpg") if not path.stem.endswith("-2"))
    return tuple(Image.open(path).convert("RGB") for path in paths) or tuple(texture(seed) for seed in range(8))


def texture(seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A coloured texture with the spectrum of natural pictures (amplitude falls with the frequency)."""
    rng = np.random.default_rng((7, seed))
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    shape = (1 / np.maximum(frequency, 1 / width))[:, :, None]
    phase: npt.NDArray[Any] = np.exp(2j * np.pi * rng.random((height, width // 2 + 1, 3)))
    waves = np.fft.irfft2(phase * shape, (height, width), axes=(0, 1))
    waves = waves @ (np.eye(3) + 1.5)  # natural colours go together
    return Image.fromarray((waves / waves.std() * 45 + 120).clip(0, 255).astype(np.uint8))
