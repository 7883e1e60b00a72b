"""What flows through the graph of videos: videos, batches of their frames in slots, rows, and videos that are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ....errors import DetectError
from ....messages import redact
from ....preprocess.videos.statistics import STATISTICS
from ....preprocess.worker.video_protocol import LeftOut, Seen
from ....sinks import RowBatch, row_key
from ... import NOTHING, ItemFailure
from ...sources.frame_keys import frame_key
from ...workers.videos import FrameSlot

_FRAMES_OF_A_VIDEO: Final = 1 << 24
"""More than there may be: rows of data sets are put in order by the number of the video, then by that of the frame."""


@dataclass(slots=True)
class Tally:
    """What has become of the frames of a video. created == written + dropped + dead, once it is done.

    Attributes:
        created: frames that were taken.
        written: those that a store has acknowledged.
        dropped: those that were left out, by reason.
        dead: those that failed.
    """

    created: int = 0
    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    dead: int = 0

    @property
    def in_flight(self) -> int:
        """Those whose fate is not known yet."""
        return self.created - self.written - self.dropped.total() - self.dead


@dataclass(slots=True, eq=False)
class Video:
    """A video of a job, and what is known of it so far.

    Attributes:
        key: what people know it by: its path, or its URL.
        path: of its file; empty before it has been downloaded.
        source: the URL that it is to be had from; None of a file of this machine.
        frames_folder: where its frames go as JPEG files; None: nowhere.
        page_duration_s: as its page says.
        ordinal: its place in the listing of a job that keeps books; -1 in others.
        url: where it came from, if it was not a file.
        title: of its page, if it came from one.
        metadata: the user's, stored with its rows.
        info: what its header says; see ``preprocess.videos.VideoInfo``.
        found: what was found in it; see ``preprocess.videos.VideoFindings``.
        tally: of its frames.
        left_out: frames of it that were.
        times_us: of its frames that are written, in any order.
        error: why no more frames came of it, where that turned out in the middle.
        first_error: of a frame that failed.
        stage: where that was, of either.
    """

    key: str
    path: str
    ordinal: int = -1
    source: str | None = None
    frames_folder: str | None = None
    page_duration_s: float | None = None
    url: str | None = None
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    found: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tally: Tally = field(default_factory=Tally)
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    times_us: list[int] = field(default_factory=list[int])
    error: Exception | None = None
    first_error: Exception | None = None
    stage: str = ""

    def begin(self) -> None:
        """Its frames come, from the first on."""
        self.info, self.found, self.tally, self.left_out, self.times_us = {}, {}, Tally(), [], []
        self.error = self.first_error = None
        self.stage = ""

    def leave_out(self, frames: Sequence[LeftOut]) -> None:
        """Frames of it were taken, and left out."""
        self.left_out += frames
        self.tally.dropped.update(frame.reason for frame in frames)

    def frame_died(self, stage: str, error: Exception) -> None:
        """A frame of it could not be done."""
        self.tally.dead += 1
        if self.first_error is None:
            self.first_error, self.stage = error, stage

    def frame_key(self, pts_us: int) -> str:
        """The key of a frame of it, the same in every run."""
        return frame_key(self.key, pts_us)

    @property
    def duration_s(self) -> float | None:
        """As it is declared, or as far as it has been read."""
        end = self.info.get("duration_us") or self.found.get("end_us")
        return end / 1e6 if end else self.page_duration_s

    def columns(self) -> dict[str, Any]:
        """What all of its rows say of it."""
        key = redact(self.key)
        own = {
            "path": key,
            "video_key": key,
            "url": self.url,
            "title": self.title,
            "duration_s": self.duration_s,
            "width": self.info["width"],
            "height": self.info["height"],
        }
        return {**self.metadata, **{name: value for name, value in own.items() if value is not None}}


@dataclass(frozen=True, slots=True)
class VideoFailure(ItemFailure):
    """A video, or one of its frames, that could not be done.

    Attributes:
        ordinal: of the video.
        video: None for what never was one.
        is_frame: whether it is about one frame alone.
        stage: where it turned out, if that is not the stage that says so.
    """

    ordinal: int = -1
    video: Video | None = field(default=None, repr=False, compare=False)
    is_frame: bool = False
    stage: str = ""


@dataclass(slots=True, eq=False)
class FrameBatch:
    """Frames of a video in a slot, on their way to the embedder.

    Attributes:
        video: of which they are.
        slot: where their pixels lie.
        is_last: whether what is done with them now is not done again.
    """

    video: Video
    slot: FrameSlot
    is_last: bool = False

    def __len__(self) -> int:
        return len(self.slot.numbers)

    @property
    def lease(self) -> FrameSlot:
        """The slot."""
        return self.slot

    @property
    def seen(self) -> Sequence[Seen]:
        """What a detector has found in each frame; empty without one."""
        return self.slot.said.seen if self.slot.said else ()

    @property
    def refused(self) -> Mapping[int, Exception]:
        """Frames of which the detector could not say what is in them."""
        return {row: DetectError(seen.error) for row, seen in enumerate(self.seen) if seen.error}

    def failure(self, row: int, error: Exception) -> VideoFailure:
        """The frame in a row could not be done."""
        key, video = self.video.frame_key(int(self.slot.numbers[row, 1])), self.video
        stage = "detect" if isinstance(error, DetectError) else ""
        return VideoFailure(key, error, 1, video.ordinal, video, True, stage)


@dataclass(slots=True, eq=False)
class FrameRows:
    """Frames with their vectors, on the way to the sink. The vectors are its own memory."""

    video: Video
    keys: list[str]
    rows: RowBatch

    def __len__(self) -> int:
        return len(self.keys)

    def failure(self, row: int, error: Exception) -> VideoFailure:
        """The sink refused a row."""
        return VideoFailure(self.keys[row], error, 1, self.video.ordinal, self.video, True)


@dataclass(frozen=True, slots=True)
class Written:
    """Frames of a video that the sink has acknowledged, by their times."""

    times_us: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A video all of whose frames are written or left out."""

    video: Video


def take_rows(batch: FrameBatch, refused: Container[int] = (), *, hashed: bool = False) -> Any:
    """Copy the vectors out of the slot, make rows of them (without the refused ones), and give the slot back.

    Args:
        batch: of frames.
        refused: rows that have failed.
        hashed: whether rows have what near-duplicates are found by, too.

    Returns:
        `FrameRows`; `NOTHING` where none are left.

    Raises:
        StaleSlotError: the slot was written by somebody else meanwhile.
    """
    video, slot = batch.video, batch.slot
    kept = [row for row in range(len(batch)) if row not in refused]
    vectors = np.array(slot.view.embeddings[kept], np.float32, order="C")
    slot.check()
    slot.release()
    if not kept:
        return NOTHING
    common = video.columns()
    hashes = slot.said.hashes if hashed and slot.said else ()
    keys: list[str] = []
    columns: list[dict[str, Any]] = []
    ordinals: list[int] = []
    for row in kept:
        index, pts_us, is_keyframe, estimated = slot.numbers[row].tolist()
        keys.append(video.frame_key(pts_us))
        known: dict[str, Any] = {"time_estimated": True} if estimated else {}
        if batch.seen:
            found = batch.seen[row]
            known["detections"] = {"boxes": found.boxes, "scores": found.scores, "classes": found.classes}
        if hashes:
            known |= {"pdq": hashes[row].pdq, "pdq_quality": hashes[row].quality, "digest": hashes[row].digest}
        numbers = dict(zip(STATISTICS, map(float, slot.statistics[row]), strict=True))
        columns.append({**common, "frame_pts_us": pts_us, "is_keyframe": bool(is_keyframe), **known, **numbers})
        ordinals.append(-1 if video.ordinal < 0 else video.ordinal * _FRAMES_OF_A_VIDEO + index)
    return FrameRows(video, keys, RowBatch([*map(row_key, keys)], vectors, columns, ordinals))
