"""The first videos of a job for a contact sheet: small pictures of frames that were written, spread over each."""

from __future__ import annotations

from typing import Final

from ....messages import redact
from ...observe.frames_sheet import ShownVideo, frames_sheet, shown_frame
from ..common.shown_frames import show_frames
from .values import Video

_VIDEOS: Final = 40
_FRAMES: Final = 12
"""What is on a page, at most: about 10 MB, which browsers open at once."""

_PATIENCE: Final = 5.0
"""Seconds for the frames of a video. What is not read by then has a note instead."""


class ContactSheet:
    """Shows videos that are done. Frames are read again from their files, which may go when a video is done."""

    def __init__(self) -> None:
        self._shown: list[ShownVideo] = []
        self._more = 0

    def add(self, video: Video) -> None:
        """A video is done."""
        if len(self._shown) >= _VIDEOS:
            self._more += 1
            return
        times = sorted(video.times_us)
        frames = [(video.path, at) for at in times[:: max(1, -(-len(times) // _FRAMES))]]
        found = show_frames(frames, _PATIENCE)
        shown = [shown_frame(frame, found[frame]) for frame in frames]
        dropped = dict(video.tally.dropped)
        key = redact(video.key)
        self._shown.append(ShownVideo(key, shown, video.tally.written, dropped, video.duration_s, video.title))

    def html(self, where: str) -> str:
        """The page, as it is now.

        Args:
            where: where the rows are, as the user named it.
        """
        return frames_sheet(sorted(self._shown, key=lambda video: video.key), where, self._more)
