"""Frames of a video that were taken before, found again by their times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from .decoder import FrameDecoder, TimedFrame
from .frames import SampledFrame
from .gops import Gop
from .video import Video


def frames_at(video: Video, times_us: Iterable[int]) -> Iterator[tuple[int, SampledFrame]]:
    """The frame that is on the screen at each of these times, in order. A time for which there is none is left out.

    Only groups of pictures with a wanted time in them are decoded, and only up to it.

    Args:
        video: Freshly opened: it is read once.
        times_us: Microseconds from its start, as `SampledFrame.pts_us` says them.

    Returns:
        Each time, with its frame.

    Raises:
        TooLargeError: It is longer than it said.
    """
    wanted, decoder = deque(sorted(set(times_us))), FrameDecoder(video)
    for gop in video.groups():
        shown: TimedFrame | None = None
        for frame in decoder.frames(gop) if _reaches(video, gop, wanted) else ():
            while wanted and video.us(frame.ticks) > wanted[0]:
                yield wanted.popleft(), _sampled(video, shown or frame)
            shown = frame
            if wanted and video.us(frame.ticks) == wanted[0]:
                yield wanted.popleft(), _sampled(video, frame)
            if not _reaches(video, gop, wanted):
                break
        for _ in gop.rest if decoder.is_damaged else ():  # then it is known where the next group begins
            pass
        while shown is not None and _reaches(video, gop, wanted):
            yield wanted.popleft(), _sampled(video, shown)
        if not wanted:
            return


def _reaches(video: Video, gop: Gop, wanted: Sequence[int]) -> bool:
    """Whether the next wanted time is before the end of a group, as far as that is known."""
    return bool(wanted) and (gop.stop is None or video.us(gop.stop) > wanted[0])


def _sampled(video: Video, frame: TimedFrame) -> SampledFrame:
    decoded = frame.decoded
    return SampledFrame(0, video.us(frame.ticks), bool(decoded.key_frame), frame.is_estimated, decoded, video.aspect)
