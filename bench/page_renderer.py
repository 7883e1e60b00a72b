"""Drawn pages of text, straight, turned and bent, whose lines are known: the first pass is held against them.

Fonts are those that matplotlib brings, in regular, bold and italic, with and without serifs, of fixed width; where it
is not installed, Pillow's own font.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from .pictures import texture

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

PILLOW: Final = "Pillow's own"

_FONTS: Final = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralItalic",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif-Italic",
    "DejaVuSansMono-Oblique",
    "STIXGeneralBol",
)
_PAPER, _INK = 250, 20
_MARGIN = 0.09  # of the width
_LEADING = 1.45  # of the size of the font

_TEXT = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one
you were all her she there would their we him been has when who will no more if out so up said what its about than
into them can only other time new some could these two may first then do any like my now over such our man me even
most made after also did many off before must well back through years where much your way down should because long
each just state those people too mister little good world make very year still see own work men day get here between
both being under three never know same last another while us might great go come since against right came take used
himself few house american use place during high without again home around small however found part school thought
went say general once upon every left war does got united number hand course water until always away public something
fact less though far put head think called set almost enough end took government night yet system better four nothing
told eyes city going president why
"""
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text on the straight page: from `left` to `right`, its baseline at `y`, all in pixels."""

    left: float
    right: float
    y: float


@dataclass(frozen=True, slots=True)
class Layout:
    """What a page looks like.

    Attributes:
        width: In pixels.
        height: The same.
        font: One of `fonts`.
        size: Of the font, in pixels.
        columns: Of text.
        picture: Whether a picture stands in the middle.
        table: Whether a table with rules does.
        filled: How much of the page has text, from the top.
    """

    width: int = 2000
    height: int = 3000
    font: str = _FONTS[0]
    size: int = 34
    columns: int = 1
    picture: bool = False
    table: bool = False
    filled: float = 1.0


Warp = Callable[[Floats, Floats], Floats]
"""How far down a page is bent at x and y, each 0..1 of its width and height, in pixels for 2,000 of width."""

WARPS: Final[dict[str, Warp]] = {
    "wave": lambda x, y: 10 * np.sin(2 * np.pi * x + 0.3) + 0 * y,
    "curl": lambda x, y: 45 * np.exp(-7 * x) * (1 - 0.2 * y),
    "fan": lambda x, y: 150 * (x - 0.5) ** 2 * (1 - 2 * y),
    "mixed": lambda x, y: 8 * np.sin(2 * np.pi * x) * np.cos(np.pi * y) + 24 * (x - 0.5) ** 2,
}
"""Pages that are bent, by name."""


@lru_cache(maxsize=1)
def fonts() -> tuple[str, ...]:
    """Names of the fonts that are here."""
    folder = _font_folder()
    found = tuple(name for name in _FONTS if folder is not None and (folder / f"{name}.ttf").is_file())
    return found or (PILLOW,)


def _font_folder() -> Path | None:
    package = find_spec("matplotlib")  # which is not imported for its files
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" if package and package.origin else None


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    folder = _font_folder()
    if folder is None or name not in fonts() or name == PILLOW:
        return ImageFont.load_default(size)
    return ImageFont.truetype(folder / f"{name}.ttf", size)


def draw(layout: Layout, seed: int = 0) -> tuple[UInt8, list[Line]]:
    """A straight page in grey, uint8 ``[height, width]``, and its lines."""
    rng = random.Random(seed)
    image = Image.new("L", (layout.width, layout.height), _PAPER)
    pen, margin = ImageDraw.Draw(image), int(_MARGIN * layout.width)
    column = (layout.width - 2 * margin - (layout.columns - 1) * 2 * layout.size) // layout.columns
    bottom = margin + (layout.height - 2 * margin) * layout.filled
    font, lines = _font(layout.font, layout.size), list[Line]()
    for number in range(layout.columns):
        left, y = margin + number * (column + 2 * layout.size), float(margin)
        while y < bottom - layout.size * _LEADING:
            y += layout.size * _LEADING * (rng.random() < 0.03)  # a gap as before a heading
            last = rng.random() < 0.12  # line of a paragraph
            text = _words(rng, pen, font, column * (rng.uniform(0.2, 0.9) if last else 1.0))
            pen.text((left, y), text, font=font, fill=_INK, anchor="ls")
            lines.append(Line(left, left + pen.textlength(text, font=font), y))
            y += layout.size * (_LEADING + 0.3 * last)
    page = np.asarray(image).copy()
    box = margin, layout.height // 3, layout.width - margin, layout.height * 3 // 5
    if layout.picture:
        page[box[1] : box[3], box[0] : box[2]] = _picture(seed, box[2] - box[0], box[3] - box[1])
    if layout.table:
        page[box[1] : box[3], box[0] : box[2]] = _table(box[2] - box[0], box[3] - box[1])
    return page, [line for line in lines if not (layout.picture or layout.table) or not box[1] <= line.y < box[3]]


def _words(rng: random.Random, pen: ImageDraw.ImageDraw, font: Any, width: float) -> str:
    words = [rng.choice(_WORDS)]
    while pen.textlength(" ".join((*words, more := rng.choice(_WORDS))), font=font) <= width:
        words.append(more)
    return " ".join(words)


def _picture(seed: int, width: int, height: int) -> UInt8:
    return np.asarray(texture(seed).convert("L").resize((width, height), Image.Resampling.BICUBIC))


def _table(width: int, height: int) -> UInt8:
    image = Image.new("L", (width, height), _PAPER)
    pen = ImageDraw.Draw(image)
    for y in range(0, height, max(1, height // 12)):
        pen.line((0, y, width, y), fill=_INK, width=3)
    for x in range(0, width, max(1, width // 6)):
        pen.line((x, 0, x, height), fill=_INK, width=3)
    return np.asarray(image)


def turn(page: UInt8, angle: float) -> UInt8:
    """The page turned about its centre, counter-clockwise by `angle` degrees."""
    return np.asarray(Image.fromarray(page).rotate(angle, Image.Resampling.BICUBIC, fillcolor=_PAPER))


def bent(page: UInt8, warp: Warp) -> UInt8:
    """The page with each column shifted down by what `warp` says, linear between pixels."""
    height, width = page.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    above = np.clip(y - shift(warp, x, y, width, height), 0, height - 1.001)
    first = above.astype(np.intp)
    part = above - first
    column = np.arange(width)
    return np.asarray(page[first, column] * (1 - part) + page[first + 1, column] * part + 0.5, np.uint8)


def shift(warp: Warp, x: Floats, y: Floats, width: int, height: int) -> Floats:
    """How far down a position of the bent page comes from, in pixels; x and y in pixels, too."""
    return warp(x / width, y / height) * width / 2000


def scanned(page: UInt8, seed: int, deviation: float = 8.0) -> UInt8:
    """The page with the noise of a scanner, darker towards the left and the bottom."""
    height, width = page.shape
    light = np.linspace(0.75, 1, width, dtype=np.float32) * np.linspace(1, 0.9, height, dtype=np.float32)[:, None]
    noise = np.random.default_rng(seed).standard_normal(page.shape, np.float32) * np.float32(deviation)
    return np.asarray((page * light + noise).clip(0, 255), np.uint8)
