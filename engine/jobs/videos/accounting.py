"""How the engine counts videos and their frames, and what is done about those that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ....errors import HostStoppedError, ItemError, PenstockError
from ....formatting import printable
from ....sinks import DeadLetters
from ... import ItemFailure
from ...core.values import Gathered
from ..common.checkpoint import JobCheckpoint
from .books import VideoBooks
from .values import FrameBatch, FrameRows, Video, VideoFailure, Written


class VideoValues:
    """The engine's view of videos: a video is an item, and so is a frame, as long as its video waits for it.

    Args:
        letters: where dead letters go.
        books: of the videos.
        checkpoint: told of each video, after its letter; None for a job that cannot be resumed.
        spent: called for each video that is dead: its file is not needed any more.
    """

    def __init__(
        self,
        letters: DeadLetters,
        books: VideoBooks,
        checkpoint: JobCheckpoint | None = None,
        spent: Callable[[Video], object] = lambda _: None,
    ) -> None:
        self._letters, self._books, self._checkpoint = letters, books, checkpoint
        self._spent = spent

    def units(self, value: Any) -> int:
        """Videos or frames in a value."""
        match value:
            case Written():
                return len(value.times_us)
            case FrameBatch() | FrameRows():
                return len(value)
            case list():
                return sum(map(self.units, value))  # pyright: ignore[reportUnknownArgumentType]
            case _:
                return 1

    def nbytes(self, value: Any) -> int:
        """Bytes a value keeps alive besides its slot."""
        return value.rows.vectors.nbytes if isinstance(value, FrameRows) else 0

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> Callable[[], None] | None:
        """Who failed, to be recorded where one may wait. A failure without a key is about all of the value."""
        found: list[VideoFailure] = []
        for failure in failures:
            if self._checkpoint and _is_about_the_job(failure.error):
                continue  # the next run does it again
            if self._checkpoint and isinstance(failure.error, HostStoppedError):
                self._books.left += 1  # likewise, and this one goes on
                continue
            found += _failures(value, failure)
        for failure in found:
            if failure.is_frame and failure.video is not None:
                failure.video.frame_died(failure.stage or stage, failure.error)
        return partial(self._record, stage, found) if found else None

    def _record(self, stage: str, failures: Sequence[VideoFailure]) -> None:
        for failure in failures:
            self._write(failure.stage or stage, failure)

    def _write(self, stage: str, failure: VideoFailure) -> None:
        error, earlier = failure.error, 0
        if self._checkpoint:
            earlier = self._checkpoint.attempts(failure.key)
        known = {"sha256": error.sha256} if isinstance(error, ItemError) and error.sha256 else {}
        video = {"video": failure.video.key} if failure.is_frame and failure.video else {}
        self._letters.write(failure.key, stage, error, attempts=earlier + failure.attempts, **known, **video)
        if failure.is_frame:
            return
        self._books.died(failure.key, failure.ordinal, failure.video, stage, error)
        if self._checkpoint:
            self._checkpoint.dead([failure.ordinal])
        if failure.video:
            self._spent(failure.video)

    def discard(self, value: Any) -> None:
        """A batch that goes no further gives its slot back."""
        if isinstance(value, FrameBatch):
            value.slot.release()

    def part(self, value: Any, failures: Sequence[ItemFailure]) -> None:
        """Frames have given their slot back by then: what could not be embedded stays so."""
        del value, failures

    def last_attempt(self, value: Any) -> None:
        """An embedder that fails of something transient finds out then which frames are to blame."""
        if isinstance(value, FrameBatch):
            value.is_last = True

    def describe(self, value: Any) -> str:
        """The key of its video."""
        match value:
            case Video():
                return printable(value.key)
            case FrameBatch() | FrameRows():
                return f"{len(value)} frames of {printable(value.video.key)}"
            case Gathered():
                return self.describe(value.value)
            case list():
                return ", ".join(map(self.describe, value[:1])) + (f" and {len(value) - 1} more" if value[1:] else "")  # pyright: ignore[reportUnknownArgumentType]
            case _:
                return ""


def _failures(value: Any, failure: ItemFailure) -> list[VideoFailure]:
    """A failure as those of videos and frames that it is about."""
    if isinstance(failure, VideoFailure):
        return [failure]
    error, attempts = failure.error, failure.attempts
    match value:
        case Video():
            return [VideoFailure(value.key, error, attempts, value.ordinal, value)]
        case FrameBatch() | FrameRows():
            return [value.failure(row, error) for row in range(len(value))]
        case list():
            return [each for part in value for each in _failures(part, failure)]  # pyright: ignore[reportUnknownVariableType]
        case Gathered():
            return _failures(value.value, failure)
        case _:
            return []


def _is_about_the_job(error: Exception) -> bool:
    """An error that ends the job says nothing about the videos it met."""
    return isinstance(error, PenstockError) and not isinstance(error, ItemError)
