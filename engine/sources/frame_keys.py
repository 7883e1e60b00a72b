"""Keys of frames: the key of their video, and their time in it."""

from __future__ import annotations

import re
from typing import Final

_FRAME: Final = re.compile(r"(.+)#t=(\d+)", re.DOTALL)


def frame_key(video_key: str, pts_us: int) -> str:
    """The key of a frame of a video, the same in every run.

    Args:
        video_key: of the video: its path, or its URL.
        pts_us: microseconds from its start.
    """
    return f"{video_key}#t={pts_us}"


def frame_of(key: str) -> tuple[str, int] | None:
    """The video and the time of a key that `frame_key` has made; None of any other."""
    found = _FRAME.fullmatch(key)
    return (found[1], int(found[2])) if found else None
