"""Pictures that are distinct and copies that are not, made of the demo's photographs, with their signatures."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter

from ..engine.config.model import ServiceConfig
from ..engine.embedders import ArrayView
from ..engine.jobs.common.plan import make_plan
from ..preprocess.signature import unpacked
from ..preprocess.worker.preprocessor import Preprocessor
from ..sinks.signatures import Signatures, SignatureWriter

PHOTOS: Final = Path(__file__).parents[1] / "examples" / "photos"
_ROWS: Final = 64
_TURNS: Final = 4
_OVERLAP: Final = 0.35

Kind = Callable[[Image.Image], Image.Image]


def distinct(count: int) -> Iterator[tuple[str, Image.Image]]:
    """Strong crops of the photographs, 14 to 55 % of their sides, in four rotations: none shows what another does.

    Yields:
        Scene, ``/``, and what tells it from others of the scene; the picture.
    """
    photos = sorted(PHOTOS.glob("*.jpg"))
    each = -(-count // (_TURNS * len(photos)))
    made = 0
    for number, path in enumerate(photos):
        with Image.open(path) as image:
            photo = image.convert("RGB")
        scene, view = path.stem.rsplit("-", 1)
        for crop, box in enumerate(_boxes(photo.size, each, np.random.default_rng(number))):
            picture = photo.crop(box)
            for turn in range(_TURNS):
                if made == count:
                    return
                made += 1
                yield f"{scene}/{view}-{crop}-{turn}", picture.rotate(90 * turn, expand=True)


def _boxes(size: tuple[int, int], count: int, random: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Boxes of which no two share more than `_OVERLAP` of what both cover."""
    width, height = size
    found: list[tuple[int, int, int, int]] = []
    while len(found) < count:
        w, h = (int(random.uniform(0.14, 0.55) * side) for side in size)
        x, y = int(random.integers(0, width - w)), int(random.integers(0, height - h))
        if all(_iou((x, y, x + w, y + h), other) <= _OVERLAP for other in found):
            found.append((x, y, x + w, y + h))
    return found


def _iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, w) * max(0, h)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _scaled(share: float) -> Kind:
    return lambda image: image.resize((max(8, int(image.width * share)), max(8, int(image.height * share))))


def _saved(how: str, quality: int) -> Kind:
    def kind(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, how, quality=quality)
        return Image.open(file).convert("RGB")

    return kind


def _gamma(power: float) -> Kind:
    table = [round(255 * (each / 255) ** power) for each in range(256)] * 3
    return lambda image: image.point(table)


def _cut(share: float) -> Kind:
    def kind(image: Image.Image) -> Image.Image:
        dx, dy = round(image.width * share / 2), round(image.height * share / 2)
        return image.crop((dx, dy, image.width - dx, image.height - dy))

    return kind


def _noise(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image, np.int16)
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def _marked(image: Image.Image) -> Image.Image:
    """A light bar over an eighth of the height, half transparent."""
    marked = image.copy()
    box = (image.width // 8, image.height * 3 // 4, image.width * 7 // 8, image.height * 7 // 8)
    marked.paste(Image.blend(image, Image.new("RGB", image.size, "white"), 0.5).crop(box), box)
    return marked


def _turned(image: Image.Image) -> Image.Image:
    return _cut(0.08)(image.rotate(2, Image.Resampling.BICUBIC))


KINDS: Final[dict[str, Kind]] = {
    "same pixels": lambda image: image.copy(),
    "half size": _scaled(0.5),
    "double size": _scaled(2.0),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "saturation": lambda image: ImageEnhance.Color(image).enhance(1.6),
    "sharpened": lambda image: ImageEnhance.Sharpness(image).enhance(2.0),
    "blur 2": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "noise": _noise,
    "jpeg 30": _saved("JPEG", 30),
    "webp 40": _saved("WEBP", 40),
    "gamma 0.7": _gamma(0.7),
    "gamma 1.5": _gamma(1.5),
    "crop 5 %": _cut(0.05),
    "crop 10 %": _cut(0.1),
    "crop 5 %, gamma, 60 %, jpeg 50": lambda image: _saved("JPEG", 50)(_scaled(0.6)(_gamma(0.8)(_cut(0.05)(image)))),
    "watermark": _marked,
}
"""What is done to a picture to make a copy of it."""

HARD: Final[dict[str, Kind]] = {
    "rotated by 2 degrees": _turned,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "crop 20 %": _cut(0.2),
}
"""Copies that are not promised to be found."""


def write_signatures(folder: Path, pictures: Iterator[tuple[str, Image.Image]], part: int = 4096) -> None:
    """Signatures of pictures, made as the job's workers make them."""
    plan = make_plan(ServiceConfig(embedder="signature"))
    preprocessor = Preprocessor(plan.spec, _ROWS)
    plan.embedder.open(plan.spec, _ROWS)
    view = ArrayView(
        np.zeros((_ROWS, *plan.spec.pixel_shape()), np.uint8), np.zeros((_ROWS, plan.embedder.dimension), np.float32)
    )
    writer = SignatureWriter(folder)
    keys: list[str] = []
    sides: list[int] = []
    rows: list[npt.NDArray[np.float32]] = []
    waiting = 0

    def embed() -> None:
        nonlocal waiting
        preprocessor.run(view.pixels, range(waiting))
        plan.embedder.embed(view, waiting)
        rows.append(view.embeddings[:waiting].copy())
        waiting = 0

    def write() -> None:
        if waiting:
            embed()
        vectors, tail = unpacked(np.concatenate(rows))
        digest = np.where((tail.quality >= 50)[:, None], tail.digest, 0)
        own = {"quality": tail.quality, "sharpness": tail.sharpness, "pdq": tail.pdq, "digest": digest}
        writer.write(keys[0].replace("/", "-"), Signatures.of(keys, vectors, short_side=np.array(sides), **own))
        for each in (keys, sides, rows):
            each.clear()

    for key, picture in pictures:
        preprocessor.load(waiting, np.asarray(picture))
        keys.append(key)
        sides.append(min(picture.size))
        waiting += 1
        if waiting == _ROWS:
            embed()
        if len(keys) == part:
            write()
    if keys:
        write()
