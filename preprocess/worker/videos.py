"""The worker process of videos: a piece of a video is decoded, and its frames go into a slot as pixels.

One process, one core, one decoder thread. A video stays open between its pieces, which come one after the other. Where
another process has had the pieces before, the video is read again from its start, which gives the same frames.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

from ...errors import ConfigError, DeadlineError, ItemError
from ...shm import Ring, map_payload, recv_frame_fds, send_frame
from ...shm.protocol import HEAD, LAYOUT, REFUSED, decode_json, encode_json
from ..slot_layout import pixel_view
from ..spec import PreprocessSpec
from ..videos import SampledFrame, Sampling, Video, VideoLimits, open_video, sample
from ..videos.filters import Thresholds
from .eyes import Eyes
from .failures import detach_traceback
from .frame_files import FrameFiles
from .frame_look import FrameLook, UInt8, warm_up
from .jax_runtime import prepare_jax
from .preprocessor import Preprocessor
from .protocol import Timings
from .stall_watch import StallWatch
from .video_protocol import (
    FRAMES,
    STATISTICS_ARRAY,
    WITHOUT,
    Kept,
    LeftOut,
    Piece,
    PieceSaid,
    Seen,
    VideoSettings,
    decode_pieces,
    encode_piece_done,
    video_layout,
)
from .worker import make_embedder

_LEAST_SIDE = 256
"""Frames are scaled down while their colours are converted, but not below this: what is found out about a frame is
found out on these pixels."""


def main(sock: socket.socket, argument: bytes, _fds: list[int]) -> None:
    """Entry point of a worker process: serve until the parent closes the socket."""
    settings = VideoSettings.from_json(argument)
    sys.path[:] = settings.path
    try:
        prepare_jax()
        worker = VideoWorker(sock, settings)
    except ConfigError as error:
        send_frame(sock, encode_json(REFUSED, str(error)))
        return
    worker.serve()


class _OpenVideo:
    """A video that is being read.

    Args:
        path: of the file.
        sampling: which frames are taken.
        limits: what it may be.
        look: looks at its frames.
        files: keeps those of them that stay; None: nobody does.
        on_packet: called before each packet.
    """

    def __init__(
        self,
        path: str,
        sampling: Sampling,
        limits: VideoLimits,
        look: FrameLook,
        files: FrameFiles | None,
        on_packet: Callable[[], None],
    ) -> None:
        self.path, self.at, self.look, self.files = path, 0, look, files
        self._files = ExitStack()
        self.video: Video = self._files.enter_context(open_video(path, limits))
        self._frames = sample(self.video, sampling, lambda _: on_packet())
        self._next: SampledFrame | None = None

    def skip_to(self, start: int, judge: Callable[[SampledFrame], object]) -> None:
        """Pass by frames that were taken before; their files have gone with the process that wrote them."""
        while self.at < start and self.has_more:
            frame = self.take()
            if self.files is not None:
                judge(frame)

    @property
    def has_more(self) -> bool:
        """Whether there is another frame; reads as far as that takes."""
        if self._next is None:
            self._next = next(self._frames, None)
        return self._next is not None

    def take(self) -> SampledFrame:
        """The next frame."""
        frame, self._next = self._next, None
        assert frame is not None
        self.at += 1
        return frame

    def close(self) -> None:
        """Close the file. Frames that are to be kept are, if it has been read to its end."""
        if self.files is not None:
            self.files.abandon()
        self._next, self._frames = None, iter(())
        self._files.close()


class VideoWorker:
    """One worker's life: introduce itself, compile, map the ring, then one piece after the other."""

    def __init__(self, sock: socket.socket, settings: VideoSettings) -> None:
        self._sock, self._settings = sock, settings
        self._sampling, self._limits = Sampling.parse(settings.every), VideoLimits(**settings.limits)  # type: ignore[arg-type]
        spec = PreprocessSpec.from_json(settings.spec)
        self._preprocessor = Preprocessor(spec, settings.rows)
        self._embed = make_embedder(settings.embedder, spec, settings.rows)
        dimension = self._embed.dimension if self._embed else settings.dimension
        self._layout = video_layout(settings.rows, spec.pixel_shape(), spec.pixel_dtype().name, dimension)
        self._short_side = max(_LEAST_SIDE, 2 * (spec.resize or spec.size))
        self._watch = StallWatch(sock, settings.stall_timeout)
        self._eyes = Eyes(settings.detector, settings.classes) if settings.detector else None
        self._open: _OpenVideo | None = None
        self._mark: Callable[[int | None], None] = lambda _: None
        self._steps = 0
        self._cpu_begin = 0.0

    def serve(self) -> None:
        """Work until the parent closes the socket."""
        send_frame(self._sock, encode_json(LAYOUT, self._layout.to_json()))
        for _ in self._preprocessor.warm():
            break
        warm_up()
        if self._embed:
            self._embed.embed(pixel_view(self._layout.private_view()), self._settings.rows)
        first = recv_frame_fds(self._sock)
        if first is None:
            return
        frame, fds = first
        ring = Ring.attach(fds[0], self._layout, decode_json(frame)["slots"])
        while (message := recv_frame_fds(self._sock)) is not None:
            frame, fds = message
            _, slot, generation, _ = HEAD.unpack_from(frame)
            body = map_payload(fds[0]) if fds else memoryview(frame)[HEAD.size :]
            (piece,) = decode_pieces(body)
            self._do(ring, slot, generation, piece)

    def _do(self, ring: Ring, slot: int, generation: int, piece: Piece) -> None:
        ring.begin(slot, generation)
        self._mark = lambda step: ring.mark(slot, step)
        self._cpu_begin = time.thread_time() - piece.cpu_used
        try:
            with self._watch.over(slot, generation):
                said = self._made(ring.view(slot), piece)
        except ItemError as error:
            self._close()
            ring.commit(slot, generation, 0)
            failure = (0, detach_traceback(error, piece.path))
            send_frame(self._sock, encode_piece_done(slot, generation, 0, None, [failure]))
            return
        ring.commit(slot, generation, said.rows)
        send_frame(self._sock, encode_piece_done(slot, generation, said.rows, said))

    def _made(self, arrays: Any, piece: Piece) -> PieceSaid:
        """Fill a slot with a piece of a video.

        Raises:
            ItemError: the video cannot be read, or took its time.
        """
        begin = time.perf_counter()
        opened = self._at(piece)
        rows = 0
        left_out: list[LeftOut] = []
        seen: list[Seen] = []
        hashes: list[Kept] = []
        for frame in self._frames(opened):
            picture, found = self._judged(opened, frame)
            if isinstance(picture, LeftOut):
                left_out.append(picture)
                continue
            seen += [found] if found is not None else []
            hashes += [opened.look.kept] if opened.look.kept is not None else []
            self._preprocessor.load(rows, picture)
            arrays[FRAMES][rows] = (frame.index, frame.pts_us, frame.is_keyframe, frame.time_estimated)
            arrays[STATISTICS_ARRAY][rows] = opened.look.statistics
            rows += 1
        has_more = opened.has_more
        if not has_more and opened.files is not None:
            opened.files.complete()
            opened.files = None
        self._mark(None)
        self._watch.pause()
        decoded = time.perf_counter()
        view = pixel_view(arrays)
        if rows:
            self._preprocessor.run(view.pixels, range(rows))
        made = time.perf_counter()
        if self._embed and rows:
            self._embed.embed(view, rows)
        timings = Timings(0.0, decoded - begin, made - decoded, time.perf_counter() - made)
        said = self._said(opened, rows + len(left_out), left_out, has_more, timings, seen, hashes)
        if not has_more:
            self._close()
        return said

    def _said(
        self,
        opened: _OpenVideo,
        taken: int,
        left_out: list[LeftOut],
        has_more: bool,
        timings: Timings,
        seen: list[Seen],
        hashes: list[Kept],
    ) -> PieceSaid:
        found = asdict(opened.video.found)
        found["scenes"] = [[scene["start_us"], scene["end_us"]] for scene in found["scenes"]]
        cpu = time.thread_time() - self._cpu_begin
        info = asdict(opened.video.info)
        return PieceSaid(taken, has_more, left_out, info, found, cpu, timings, opened.look.kept, seen, hashes)

    def _judged(self, opened: _OpenVideo, frame: SampledFrame) -> tuple[UInt8 | LeftOut, Seen | None]:
        """The picture in a frame and what is to be seen in it; or why it is left out."""
        picture = opened.look.at(frame.pts_us, frame.rgb(self._short_side))
        if isinstance(picture, LeftOut):
            return picture, None
        seen = None if self._eyes is None else self._eyes.look(frame, opened.video.info)
        if self._eyes is not None and seen is not None and self._eyes.is_without(seen):
            return opened.look.left_out(frame.pts_us, WITHOUT), None
        if opened.files is not None:
            opened.files.add(frame, opened.look.statistics, picture)
        return picture, seen

    def _frames(self, opened: _OpenVideo) -> Iterator[SampledFrame]:
        for _ in range(self._settings.rows):
            if not opened.has_more:
                return
            yield opened.take()
            self._step()

    def _at(self, piece: Piece) -> _OpenVideo:
        """The video, where the piece begins."""
        opened = self._open
        if opened is None or (opened.path, opened.at) != (piece.path, piece.start):
            self._close()
            files = FrameFiles(piece.frames) if piece.frames is not None else None
            kept = piece.kept if files is None else None  # all frames are looked at again
            thresholds = Thresholds(**self._settings.thresholds)
            look = FrameLook(self._settings.filters, self._settings.neighbours, kept, thresholds)
            try:
                opened = _OpenVideo(piece.path, self._sampling, self._limits, look, files, self._step)
            except ItemError:
                if files is not None:
                    files.abandon()
                raise
            self._open = opened
            opened.skip_to(piece.start, partial(self._judged, opened))
        return opened

    def _close(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    def _step(self) -> None:
        """The decoder goes on: it does not stand still, and has so much of its time left.

        Raises:
            DeadlineError: it has none.
        """
        self._steps = (self._steps + 1) % (1 << 30)
        self._mark(self._steps)
        self._watch.step()
        used = time.thread_time() - self._cpu_begin
        if used > self._settings.cpu_timeout:
            raise DeadlineError(
                f"decoding took more than video_timeout ({self._settings.cpu_timeout:g} s of processor time);"
                " --video-timeout allows more, and a larger --every or --every keyframes takes less"
            )
