"""A volume as one HTML page: its first pages as they were scanned and as they became, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from .html import page
from .thumbnails import data_uri, thumbnail


class PageRecord(Protocol):
    """What the sheet needs of a page's row."""

    @property
    def key(self) -> str: ...
    @property
    def volume_id(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def angle(self) -> float | None: ...
    @property
    def bend(self) -> float | None: ...
    @property
    def quality(self) -> float | None: ...
    @property
    def quality_after(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class PagePair:
    """A page before and after.

    Attributes:
        record: its row.
        before: `page_thumbnail` of the scan; None if it cannot be shown.
        after: the same of the result; None where the page was left as it was.
    """

    record: PageRecord
    before: bytes | None
    after: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Shown:
    record: PageRecord
    before: str | None
    after: str | None
    done: str
    quality: str


def page_thumbnail(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A small JPEG of a page: what is kept for the sheet, about 20 KB.

    Args:
        pixels: uint8 ``[h, w]`` or ``[h, w, 3]``.
    """
    return thumbnail(Image.fromarray(pixels))


def volume_sheet(pairs: Sequence[PagePair], where: str) -> str:
    """The page, with the pairs in their order under the names of their volumes.

    Args:
        pairs: the first pages of each volume.
        where: what was read, as the user named it.
    """
    volumes: dict[str, list[_Shown]] = {}
    for pair in pairs:
        volumes.setdefault(pair.record.volume_id, []).append(_shown(pair))
    return page("volume_sheet.html", volumes=volumes, where=where)


def _shown(pair: PagePair) -> _Shown:
    before, after = (None if jpeg is None else data_uri(jpeg) for jpeg in (pair.before, pair.after))
    record = pair.record
    seen = []
    if record.angle is not None:
        seen.append(f"{record.angle:+.2f} degrees")
    if record.bend is not None:
        seen.append(f"bent by {record.bend:.1f} pixels")
    quality = "" if record.quality is None else f"quality {record.quality:.1f}"
    if quality and record.quality_after is not None:
        quality += f", then {record.quality_after:.1f}"
    return _Shown(record, before, after, ", ".join(seen), quality)
