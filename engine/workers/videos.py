"""Videos as a kind of work: pieces of videos go in, slots with the pixels of their frames come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...errors import ItemError
from ...preprocess.spec import PreprocessSpec
from ...preprocess.videos.statistics import STATISTICS
from ...preprocess.worker.protocol import Row, Timings
from ...preprocess.worker.video_protocol import (
    FRAMES,
    STATISTICS_ARRAY,
    Piece,
    PieceCodec,
    PieceDone,
    PieceSaid,
    VideoSettings,
    video_layout,
)
from .kind import WorkerKind
from .lease import SlotLease
from .pictures import SlotBatch
from .pool import SlotPool
from .video_server import VIDEO_SERVER

ENTRY: Final = "penstock.preprocess.worker.videos:main"


class FrameSlot(SlotBatch):
    """Some frames of a video, lying in shared memory; see `SlotBatch`.

    Attributes:
        said: what the worker says of the piece; None where it failed.
        numbers: int64 ``[n, 4]``, see ``preprocess.worker.video_protocol.FRAMES``; not of the slot's memory.
        statistics: float32 ``[n, 7]``, see ``preprocess.videos.statistics``; likewise.
    """

    __slots__ = ("numbers", "said", "statistics")

    def __init__(
        self, said: PieceSaid | None, failures: Sequence[tuple[int, ItemError]], lease: SlotLease | None
    ) -> None:
        taken = said.rows if said else 0
        width, height = (said.info["width"], said.info["height"]) if said else (0, 0)
        rows = [Row(position, width, height) for position in range(taken)]
        super().__init__(rows, failures, said.timings if said else Timings(), lease)
        self.said = said
        self.numbers: NDArray[np.int64] = (
            np.array(lease.arrays[FRAMES][:taken]) if lease else np.zeros((0, 4), np.int64)
        )
        self.statistics: NDArray[np.float32] = (
            np.array(lease.arrays[STATISTICS_ARRAY][:taken]) if lease else np.zeros((0, len(STATISTICS)), np.float32)
        )
        self.check()


class VideoPool(SlotPool[Piece, PieceDone]):
    """Worker processes that decode videos. A video is done piece by piece by one of them, which keeps it open.

    Args:
        spec: what to make of each frame.
        every: which frames are taken; see ``preprocess.videos.Sampling``.
        limits: of a video, fields of ``preprocess.videos.VideoLimits``.
        workers: processes.
        batch_size: the most frames of a piece (rows of a slot).
        slots: see ``PreprocessPool``; likewise embedder, dimension and named.
        embedder: one that runs in the workers.
        dimension: of one that runs elsewhere.
        filters: names of those that frames go by; see ``preprocess.videos.filters``.
        thresholds: of filters, those that are not the defaults.
        neighbours: whether frames go that repeat the last one of their video that was kept.
        detector: ``(factory reference, specification)`` of one that finds things in frames.
        classes: of which a frame must have something, if any are named.
        item_timeout: seconds that a decoder may take for one packet.
        video_timeout: seconds of processor time that the decoding of one video may take.
        named: keep the segments' names.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        every: str,
        limits: Mapping[str, float],
        *,
        workers: int,
        batch_size: int = 32,
        slots: int = 3,
        embedder: tuple[str, str] | None = None,
        dimension: int = 0,
        filters: Sequence[str] = (),
        thresholds: Mapping[str, float] = MappingProxyType({}),
        neighbours: bool = False,
        detector: tuple[str, str] | None = None,
        classes: Sequence[str] = (),
        item_timeout: float = 30.0,
        video_timeout: float = 3600.0,
        named: bool = False,
    ) -> None:
        self.spec, self.batch_size = spec, batch_size
        settings = VideoSettings(
            *(spec.to_json(), batch_size, every, dict(limits), embedder, dimension),
            *(tuple(filters), neighbours, detector, tuple(classes), item_timeout, video_timeout),
            thresholds=dict(thresholds),
        ).to_json()
        known = not spec.transform and (dimension or embedder is None)
        layout = video_layout(batch_size, spec.pixel_shape(), spec.pixel_dtype().name, dimension) if known else None
        kind = WorkerKind(
            *(ENTRY, lambda _: settings, PieceCodec(), layout, VIDEO_SERVER, item_timeout, "video"),
            watches_itself=True,
            marks_steps=True,
        )
        super().__init__(kind, workers=workers, slots=slots, named=named)
        self._homes: Counter[int] = Counter()

    @contextmanager
    def home(self) -> Generator[int]:
        """The worker that does a video while the block runs: the one that has fewest. On the hub."""
        number = min(range(self.workers), key=lambda worker: self._homes[worker])
        self._homes[number] += 1
        try:
            yield number
        finally:
            self._homes[number] -= 1

    def decode(self, piece: Piece, home: int) -> FrameSlot:
        """Decode a piece of a video. To be called in a greenlet; returns when the slot is ready.

        Args:
            piece: which.
            home: the worker that has the video.

        Returns:
            The slot. Release it when done with.

        Raises:
            WorkerError: workers die faster than they work; nothing can be done with this pool any more.
        """
        result = self.run([piece], home)
        said = result.answer.said if result.answer else None
        return FrameSlot(said, result.failures, result.lease)
