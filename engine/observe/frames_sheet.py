"""Videos as one HTML page: frames that were kept of each, with their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...formatting import clock, count, duration
from .contact_sheet import Frame, why
from .html import page


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A frame of the page: a data: URI, or why there is none."""

    time: str
    image: str | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ShownVideo:
    """What the page has of a video.

    Attributes:
        key: as people know it.
        frames: some of those that were kept.
        kept: how many were.
        dropped: how many were left out, by reason.
        duration_s: how long it is, where that is known.
        title: of its page, if it has one.
    """

    key: str
    frames: Sequence[ShownFrame]
    kept: int
    dropped: Mapping[str, int]
    duration_s: float | None = None
    title: str | None = None

    @property
    def summary(self) -> str:
        """``7.5 s; 6 frames kept; left out: 1 blur``."""
        parts = [] if self.duration_s is None else [duration(self.duration_s)]
        parts.append(f"{count(self.kept)} frames kept")
        if left := ", ".join(f"{count(number)} {reason}" for reason, number in sorted(self.dropped.items()) if number):
            parts.append(f"left out: {left}")
        return "; ".join(parts)


def shown_frame(frame: Frame, found: str | Exception) -> ShownFrame:
    """A frame, as `ShowFrames` has found it."""
    time = clock(frame[1] / 1e6)
    if isinstance(found, str):
        return ShownFrame(time, found)
    return ShownFrame(time, None, why(found))


def frames_sheet(videos: Sequence[ShownVideo], where: str, more: int = 0) -> str:
    """The page.

    Args:
        videos: in their order.
        where: where their rows are, as the user named it.
        more: videos that are not shown.
    """
    return page("frames_sheet.html", videos=videos, where=where, more=more)
