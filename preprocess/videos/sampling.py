"""Which frames of a video are taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Self

from ...errors import ConfigError
from .frames import SampledFrame
from .video import Video

OnPacket = Callable[[int | None], None]
"""Called with the time of each packet before it is read on, in microseconds; what it raises ends the reading."""

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
        return cls("every", round(step * 1_000_000))

    def __str__(self) -> str:
        return f"{Fraction(self.step_us, 1_000_000)!s}s" if self.kind == "every" else self.kind


def sample(video: Video, sampling: Sampling, on_packet: OnPacket | None = None) -> Iterator[SampledFrame]:
    """The frames of a video that are wanted, in their order; each once.

    Args:
        video: Freshly opened: it is read once.
        sampling: Which.
        on_packet: See `OnPacket`: for a watchdog, and for deadlines.

    Raises:
        DecodeError: It cannot be decoded, by more than half.
    """
    base, wanted, index = video.time_base, 0, 0
    for packet in video.packets():
        if on_packet is not None:
            on_packet(None if packet.pts is None else video.us(packet.pts))
        for frame in packet.decode():
            video.found.frames_decoded += 1
            at = video.us(frame.pts or 0)
            if frame.key_frame if sampling.kind == "keyframes" else at >= wanted * sampling.step_us:
                wanted = at // sampling.step_us + 1 if sampling.step_us else 0
                video.found.frames_used += 1
                yield SampledFrame(index, at, bool(frame.key_frame), False, frame)
                index += 1
    assert base
