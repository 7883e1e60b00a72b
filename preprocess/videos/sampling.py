"""Which frames of a video are taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Self

from ...errors import ConfigError, TooLargeError, VideoError
from .frames import SampledFrame
from .keyframes import Keyframes
from .scenes import Scenes
from .steps import Steps
from .video import SECOND, OnPacket, Video

_UNITS = {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60)}


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames are taken.

    Attributes:
        kind: ``every``: those on the screen at each multiple of `step_us`; ``keyframes``; ``scenes``: the middle one of
            each shot.
        step_us: Microseconds, of ``every``.
    """

    kind: Literal["every", "keyframes", "scenes"]
    step_us: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1s``, ``500ms``, ``0.5s``, ``2min``, ``keyframes`` or ``scenes``.

        Raises:
            ConfigError: It is none of them, or a step of under a millisecond.
        """
        if text in ("keyframes", "scenes"):
            return cls("keyframes" if text == "keyframes" else "scenes")
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|min)", text)
        step = Fraction(found[1]) * _UNITS[found[2]] if found else Fraction(0)
        if step < Fraction(1, 1000):
            raise ConfigError(f"every={text!r}: a step of 1ms or more such as 1s, 500ms, 2min; or keyframes, scenes")
        return cls("every", round(step * SECOND))

    def __str__(self) -> str:
        return f"{self.step_us / SECOND:g}s" if self.kind == "every" else self.kind


def sample(video: Video, sampling: Sampling, on_packet: OnPacket | None = None) -> Iterator[SampledFrame]:
    """The wanted frames of a video in the order in which they are shown, each once.

    What was found on the way is in ``video.found``, whole when the last frame has been given.

    Args:
        video: Freshly opened: it is read once.
        sampling: Which frames.
        on_packet: See `OnPacket`: for a watchdog, and for deadlines.

    Raises:
        TooLargeError: There are more of them than a video may have, or it is longer than it said.
        VideoError: More than half of them cannot be decoded, or there are none. Only known at the end.
    """
    video.on_packet = on_packet
    _check(video, sampling)
    taker = _taker(video, sampling)
    found, limits = video.found, video.limits
    for index, frame in enumerate(taker.frames()):
        if index >= limits.max_frames:
            raise TooLargeError(f"more than max_frames={limits.max_frames} frames of it were to be taken")
        found.frames_used, found.missed = index + 1, taker.missed
        yield SampledFrame(
            index,
            video.us(frame.ticks),
            bool(frame.decoded.key_frame),
            frame.is_estimated,
            frame.decoded,
            video.aspect,
        )
    found.missed = taker.missed
    if taker.missed > taker.had:
        raise VideoError(f"damaged in {found.damaged} places: {taker.missed} frames cannot be decoded, {taker.had} can")
    if not taker.had:
        raise VideoError("there is no frame in it")


def _taker(video: Video, sampling: Sampling) -> Steps | Keyframes | Scenes:
    if sampling.kind == "every":
        return Steps(video, sampling.step_us)
    return Keyframes(video) if sampling.kind == "keyframes" else Scenes(video)


def _check(video: Video, sampling: Sampling) -> None:
    """What the header declares is refused before the work."""
    declared, most = video.info.duration_us, video.limits.max_frames
    if sampling.step_us and declared is not None and declared > sampling.step_us * most:
        raise TooLargeError(
            f"a frame each {sampling} of {declared / SECOND:g} s: more than max_frames={most}; take a longer step"
        )
