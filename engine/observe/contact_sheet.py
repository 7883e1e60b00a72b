"""The answer of a search as one HTML page: the query and its neighbours as pictures."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final, Protocol

from PIL import Image, ImageOps

from ...errors import ConfigError, PenstockError
from ...formatting import clock
from ...picture_formats import FORMATS
from ..sources import UrlOptions, path_of
from ..sources.by_key import is_elsewhere, read_by_keys
from .html import page
from .thumbnails import THUMBNAIL, data_uri, thumbnail

PATIENCE: Final = 10.0
"""Seconds for all pictures that are no files of this machine. Those that are not begun by then have a note instead."""

Frame = tuple[str, int]
"""A video's key, which is its path, and microseconds from its start."""

ShowFrames = Callable[[Sequence[Frame], float], Mapping[Frame, str | Exception]]
"""A data: URI for each frame, or why there is none, in so many seconds for all of them."""

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
    @property
    def metadata(self) -> Mapping[str, Any]: ...


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


def contact_sheet(
    query: str,
    hits: Sequence[Neighbour],
    where: str,
    metric: str = "COSINE",
    *,
    show_frames: ShowFrames,
    urls: UrlOptions | None = None,
) -> str:
    """The page. Pictures that are gone or cannot be shown are said so in their place.

    Args:
        query: path of the picture that was asked about.
        hits: nearest first. One that is no file is looked for by its key, for a while: in a store, a tar, a table. The
            frame of a video is read from it again.
        where: what was searched.
        metric: says what a score means.
        show_frames: reads frames of videos.
        urls: how stores and hosts are spoken to.
    """
    keys = [
        hit.path or hit.key for hit in hits if hit.path is None or (time_of(hit) is None and is_elsewhere(hit.path))
    ]
    elsewhere = read_by_keys(keys, urls or UrlOptions(), lambda data: _shown(io.BytesIO(data)), seconds=PATIENCE)
    frames = show_frames([(hit.path, at) for hit in hits if hit.path and (at := time_of(hit)) is not None], PATIENCE)
    return page(
        "contact_sheet.html",
        query=_thumbnail(query, query),
        hits=[_hit(hit, elsewhere, frames) for hit in hits],
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


def time_of(hit: Neighbour) -> int | None:
    """Microseconds from the start of its video, of a frame; None of a picture."""
    at = hit.metadata.get("frame_pts_us")
    return at if isinstance(at, int) else None


def _hit(
    hit: Neighbour, elsewhere: Mapping[str, str | Exception], frames: Mapping[Frame, str | Exception]
) -> Thumbnail:
    size = f"{hit.width} x {hit.height} pixels" if hit.width and hit.height else ""
    name = hit.path or hit.key
    if hit.path is not None and (at := time_of(hit)) is not None:
        frame = hit.path, at
        return replace(frame_picture(frame, frames[frame]), score=hit.score, dimensions=size)
    if (found := elsewhere.get(name)) is not None:
        return _found(os.path.basename(name) or name, name, found, hit.score, size)
    return _thumbnail(name, name, hit.score, size)


def frame_picture(frame: Frame, found: str | Exception) -> Thumbnail:
    """A frame of a video for a page, as `ShowFrames` has found it."""
    path, pts_us = frame
    return _found(f"{os.path.basename(path) or path} at {clock(pts_us / 1e6)}", path, found)


def _found(
    name: str, where: str, found: str | Exception, score: float | None = None, dimensions: str = ""
) -> Thumbnail:
    if isinstance(found, str):
        return Thumbnail(name, where, found, "", score, dimensions)
    return Thumbnail(name, where, None, f"Cannot be shown: {why(found)}", score, dimensions)


def why(error: Exception) -> str:
    """What a page says of an error: of those that are not penstock's own only the kind."""
    return str(error) if isinstance(error, PenstockError) else type(error).__name__


def picture(key: str) -> Thumbnail:
    """A picture by its key, for a page; or why it cannot be shown."""
    return _thumbnail(key, key)


def _thumbnail(shown: str, key: str, score: float | None = None, size: str = "") -> Thumbnail:
    name = os.path.basename(shown)
    try:
        return Thumbnail(name, shown, _shown_file(path_of(key)), "", score, size)
    except FileNotFoundError:
        problem = "The file is not there any more."
    except Exception as error:  # noqa: BLE001  (Pillow's plugins raise nine kinds, and one bad file must not cost the page)
        problem = f"Cannot be shown: {type(error).__name__}"
    return Thumbnail(name, shown, None, problem, score, size)


def _shown_file(path: str) -> str:
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError("not a regular file")
    with open(path, "rb") as file:
        return _shown(file)


def _shown(file: IO[bytes]) -> str:
    """A small JPEG of the picture. Size and format are looked at before anything is decoded."""
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise OSError("too large")
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        upright = ImageOps.exif_transpose(image)
    return data_uri(thumbnail(upright))
