"""``video_frames``: frames of a clip at a step, and keyframes, on one core; against other ways with PyAV."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from .child import Measure, Measures
from .harness import Options, Samples, Variant, run_rounds
from .result import Goal, Result, Table, tabulate
from .video_clips import make_clip

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_SECONDS = 30
_SHORT_SIDE = 256
_WAYS = ("demuxed only", "all decoded", "seek + decode", "bare loop", "penstock")
_STEPS = ((1, 1), (5, 1), (5, 5))
"""Seconds between keyframes, and between wanted frames."""


def run(options: Options) -> Result:
    """A clip of 720p30 and ``--n`` seconds, decoded by one thread; each frame is scaled to a short side of 256.

    Raises:
        WorkerError: a variant broke down.
        ModuleNotFoundError: PyAV is not installed.
    """
    seconds = options.n or _SECONDS
    clips = {key: str(make_clip(options.data, seconds, key)) for key in (1, 5)}
    rounds = options.rounds or 5
    tables = [_of_step(clips[key], key, step, rounds) for key, step in _STEPS]
    every = run_rounds(
        [
            Variant(f"{what}, keyframe every {key} s", "video_frames:taken", {"path": clip, "way": what}, one_core=True)
            for key, clip in clips.items()
            for what in ("keyframes", "scenes")
        ],
        rounds,
    )
    goals = [Goal("keyframes, keyframe every 5 s", 250)]  # as the web has them; each costs 10 ms
    tables.append(tabulate("Seconds of video a second of CPU", "times", every.of("realtime"), goals=goals))
    return Result("video_frames", tables)


def _of_step(clip: str, key: int, step: int, rounds: int) -> Table:
    samples = run_rounds(
        [Variant(way, "video_frames:taken", {"path": clip, "way": way, "step": step}, one_core=True) for way in _WAYS],
        rounds,
    )
    return tabulate(
        f"A frame every {step} s, a keyframe every {key} s",
        "ms of CPU for each frame",
        {**samples.of("ms"), "all decoded + demuxed": _worst(samples)},
        baseline="bare loop",
        goals=(
            Goal("penstock", 1.15, "bare loop", at_most=True),
            Goal("penstock", 1.0, "all decoded + demuxed", at_most=True),
        ),
    )


def _worst(samples: Samples) -> list[float]:
    """What it may cost at most: decoding everything, and reading it once more."""
    figures = samples.of("ms")
    return [decoded + read for decoded, read in zip(figures["all decoded"], figures["demuxed only"], strict=True)]


@contextmanager
def taken(path: str, way: str, step: int = 1) -> Generator[Measure, None, None]:
    """Take the frames of a clip, in one of the ways; figures of CPU time.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """
    import av

    with av.open(path) as container:
        seconds = (container.duration or 0) / 1_000_000

    def measure() -> Measures:
        start = time.process_time()
        frames = _ours(path, way, step) if way in _OURS else _theirs(path, _PEERS[way], step)
        spent = time.process_time() - start
        return {"ms": spent / max(frames, 1) * 1000, "realtime": seconds / spent}

    yield measure


_OURS = ("penstock", "keyframes", "scenes")


def _ours(path: str, way: str, step: int) -> int:
    from ..preprocess.videos import Sampling, open_video, sample

    sampling = Sampling.parse(f"{step}s" if way == "penstock" else way)
    with open_video(Path(path)) as video:
        return sum(frame.rgb(_SHORT_SIDE).shape[2] == 3 for frame in sample(video, sampling))


Peer = Callable[["InputContainer", "VideoStream", int], Iterator["VideoFrame | None"]]
"""Gives the frame at each multiple of a step, or None in its place."""


def _theirs(path: str, peer: Peer, step: int) -> int:
    import av
    from av.video.reformatter import Interpolation

    count = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in peer(container, stream, step):
            count += 1
            if frame is not None:
                size = frame.width * _SHORT_SIDE // frame.height, _SHORT_SIDE
                frame.reformat(*size, "rgb24", interpolation=Interpolation.AREA, threads=1).to_ndarray().copy()
    return count


def _demuxed(container: InputContainer, stream: VideoStream, step: int) -> Iterator[None]:
    for _ in container.demux(stream):
        pass
    seconds = (container.duration or 0) / 1_000_000
    yield from (None for _ in range(-int(-seconds // step)))


def _all_decoded(container: InputContainer, stream: VideoStream, step: int) -> Iterator[VideoFrame]:
    before: VideoFrame | None = None
    wanted = 0
    for frame in container.decode(stream):
        while frame.time > wanted:
            yield before or frame
            wanted += step
        before = frame
    if before is not None and before.time >= wanted:
        yield before


def _seek(container: InputContainer, stream: VideoStream, step: int) -> Iterator[VideoFrame]:
    seconds, base = (container.duration or 0) / 1_000_000, stream.time_base or Fraction(1)
    for wanted in range(0, int(seconds) + (seconds % 1 > 0), step):
        container.seek(int(wanted / base), stream=stream)
        for frame in container.decode(stream):
            if frame.time + 1 / 60 > wanted:
                yield frame
                break


def _bare(container: InputContainer, stream: VideoStream, step: int) -> Iterator[VideoFrame]:
    """Groups of pictures, as `preprocess.videos` has them, without all that can be otherwise in a file."""
    context, base, start = stream.codec_context, stream.time_base or Fraction(1), stream.start_time or 0
    gop: list[Packet[VideoStream]] = []
    number = 0

    def wanted(number: int) -> int:
        return start + round(number * step / base)

    def decoded() -> Iterator[VideoFrame]:
        for packet in gop:
            yield from packet.decode()
        yield from context.decode(None)

    def of(stop: int) -> Iterator[VideoFrame]:
        nonlocal number
        numbers: list[int] = []
        while wanted(number) < stop:
            numbers.append(number)
            number += 1
        if not numbers:
            return
        context.flush_buffers()
        before: VideoFrame | None = None
        for frame in decoded():
            while numbers and (frame.pts or 0) > wanted(numbers[0]):
                yield before or frame
                numbers.pop(0)
            before = frame
            if not numbers:
                return
        if before is not None:
            yield from (before for _ in numbers)

    for packet in container.demux(stream):
        if packet.pts is None:
            continue
        if packet.is_keyframe and gop:
            yield from of(packet.pts)
            gop.clear()
        gop.append(packet)
    yield from of(max((packet.pts or 0) + (packet.duration or 1) for packet in gop))


_PEERS: dict[str, Peer] = {
    "demuxed only": _demuxed,
    "all decoded": _all_decoded,
    "seek + decode": _seek,
    "bare loop": _bare,
}
