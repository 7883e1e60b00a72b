"""The answer of a search as one HTML page: the query and its neighbours as pictures."""

from __future__ import annotations

import base64
import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from PIL import Image, ImageOps

from ...errors import ConfigError
from ...picture_formats import FORMATS
from ..sources import path_of
from .html import page

THUMBNAIL: Final = 360
"""Longest side in pixels: sharp at the size the page shows it, about 20 KB each."""

_MAX_PIXELS: Final = 64_000_000

_SCALES: Final = {
    "COSINE": "Scores are cosine similarities: 1 is the same.",
    "IP": "Scores are inner products: larger is nearer.",
    "L2": "Scores are squared distances: 0 is the same.",
}


class Neighbour(Protocol):
    """What the page needs of a hit."""

    @property
    def key(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def path(self) -> str | None: ...
    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture of the page.

    Attributes:
        name: for people.
        path: where it lies.
        image: a data: URI; None if it cannot be shown.
        problem: why not.
        score: None for the query.
        dimensions: ``500 x 375``, where known.
    """

    name: str
    path: str
    image: str | None
    problem: str = ""
    score: float | None = None
    dimensions: str = ""


def contact_sheet(query: str, hits: Sequence[Neighbour], where: str, metric: str = "COSINE") -> str:
    """The page. Files that are gone or cannot be shown are said so in their place.

    Args:
        query: path of the picture that was asked about.
        hits: nearest first.
        where: what was searched.
        metric: says what a score means.
    """
    return page(
        "contact_sheet.html",
        query=_thumbnail(query, query),
        hits=[_hit(hit) for hit in hits],
        where=where,
        scale=_SCALES.get(metric, ""),
    )


def check_sheet_path(path: str | os.PathLike[str]) -> None:
    """Whether the page could be written there; to be asked before the search.

    Raises:
        ConfigError: no such folder, not writable, or no name of a file.
    """
    target = Path(path)
    if str(target) == "-":
        raise ConfigError("--html: the page is a file, as in sheet.html, and never standard output")
    if not target.parent.is_dir() or target.is_dir() or not os.access(target.parent, os.W_OK):
        raise ConfigError(f"--html: {str(target)!r} cannot be written: its folder must exist and be writable")


def _hit(hit: Neighbour) -> Thumbnail:
    size = f"{hit.width} x {hit.height} pixels" if hit.width and hit.height else ""
    if hit.path is None:
        return Thumbnail(hit.key, hit.key, None, "This row has no path: nothing to show.", hit.score, size)
    return _thumbnail(hit.path, hit.path, hit.score, size)


def _thumbnail(shown: str, key: str, score: float | None = None, size: str = "") -> Thumbnail:
    name = os.path.basename(shown)
    try:
        return Thumbnail(name, shown, _shown(path_of(key)), "", score, size)
    except FileNotFoundError:
        problem = "The file is not there any more."
    except Exception as error:  # noqa: BLE001  (Pillow's plugins raise nine kinds, and one bad file must not cost the page)
        problem = f"Cannot be shown: {type(error).__name__}"
    return Thumbnail(name, shown, None, problem, score, size)


def _shown(path: str) -> str:
    """A small JPEG of the picture. Size and format are looked at before anything is decoded."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError("not a regular file")
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise OSError("too large")
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        upright = ImageOps.exif_transpose(image)
    return data_uri(thumbnail(upright))


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of a picture, its longest side `THUMBNAIL` pixels at most. The picture is shrunk in place."""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=82)
    return file.getvalue()


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as a page can hold it."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
