"""The graph of a job on videos, declared on the one engine.

::

    videos -> download -> extract ====> embed -> rows -> insert ====> gather -> videos
                          (fan-out: batches of frames, each in a slot)

A video becomes batches of frames, each a slot of the worker that decodes it; they travel alone, and rows of several
videos are written together. When the last frame of a video is accounted for, the video is whole again and is done.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from ....errors import ChildrenFailedError
from ....preprocess.worker.video_protocol import Piece
from ....sinks import RowBatch, concat
from ... import NOTHING, ItemFailure, Outcome, PipelineBuilder, green
from ...core.policies import is_transient
from ...core.values import Gathered
from ...embedders import Embedder
from ...workers.videos import FrameSlot, VideoPool
from ..common.embedding import add_embedding
from ..common.parts import JobParts, add_insert
from .accounting import VideoValues
from .books import VideoBooks
from .downloads import VideoFiles
from .values import Finished, FrameBatch, FrameRows, Video, VideoFailure, Written, take_rows

_ROWS_WAIT: Final = 2.0
"""Seconds that rows wait for others to be written with: what was decoded is not to be lost for the wait for a host."""

VideoParts = JobParts[VideoValues]


def video_graph(
    parts: VideoParts,
    pool: VideoPool,
    embedder: Embedder,
    books: VideoBooks,
    files: VideoFiles,
    *,
    hashed: bool = False,
) -> PipelineBuilder:
    """The stages; what comes out of them is `Finished`, in no particular order.

    Args:
        parts: see `JobParts`.
        pool: decodes.
        embedder: makes vectors.
        books: of videos.
        files: downloads.
        hashed: whether rows have what near-duplicates are found by, too.
    """
    builder = (
        PipelineBuilder(values=parts.values)
        .add_source(parts.source)
        .add_resource(pool)
        .pipe(
            files.fetch,
            concurrency=files.at_once,
            executor=files.threads,
            name="download",
            on_failure=parts.policies["preprocess"],
        )
        .fanout(
            _extract_with(pool, books),
            concurrency=pool.workers,
            name="extract",
            on_failure=parts.policies["preprocess"],
        )
    )
    take = partial(take_rows, hashed=hashed)
    rows = add_embedding(builder, pool, embedder, parts.policies["embed"], take).aggregate(
        parts.insert_rows, max_wait=_ROWS_WAIT, name="rows"
    )
    return (
        add_insert(rows, parts, _insert_with(parts))
        .disaggregate()
        .gather(name="gather")
        .pipe(green(whole), name="videos")
        .add_sink(4)
    )


def _extract_with(pool: VideoPool, books: VideoBooks) -> Callable[[Video], Generator[Outcome]]:
    @green
    def extract(video: Video) -> Generator[Outcome]:
        """Piece after piece of a video, all by one worker."""
        books.begun(video)
        begin = Piece(video.path, frames=video.frames_folder)
        with pool.home() as home:
            while True:
                slot = pool.decode(begin, home)
                said = slot.said
                if said is None:
                    ((_, error),) = slot.failures
                    if video.tally.created:
                        video.error, video.stage = error, "extract"
                    elif is_transient(error):
                        raise error  # nothing has been done: it may be tried again
                    else:
                        yield Outcome(NOTHING, failures=[VideoFailure(video.key, error, 1, video.ordinal, video)])
                    return
                video.info, video.found = said.info, said.found
                video.tally.created += said.taken
                video.leave_out(said.left_out)
                yield _outcome(video, slot)
                if not said.has_more:
                    return
                begin = replace(begin, start=begin.start + said.taken, cpu_used=said.cpu_used, kept=said.kept)

    return extract


def _outcome(video: Video, slot: FrameSlot) -> Outcome:
    timings = slot.timings
    details = {"decode": timings.decode, "kernel": timings.kernel}
    value = FrameBatch(video, slot) if slot.rows else NOTHING
    return Outcome(value, seconds=sum(details.values()), details=details)


def _insert_with(parts: VideoParts) -> Callable[[list[FrameRows]], Outcome]:
    def insert(group: list[FrameRows]) -> Outcome:
        """Write rows of several videos; one value for each batch of them."""
        batch: RowBatch = concat([rows.rows for rows in group])
        refused = dict(parts.sink.write(batch).refused)
        failures: list[ItemFailure] = []
        written: list[Written | None] = []
        begin = 0
        for rows in group:
            wrong = [row for row in range(len(rows)) if begin + row in refused]
            failures += [rows.failure(row, refused[begin + row]) for row in wrong]
            columns = rows.rows.columns
            times = [columns[row]["frame_pts_us"] for row in range(len(rows)) if begin + row not in refused]
            written.append(Written(times) if times else None)
            begin += len(rows)
        return Outcome(written, failures=failures)

    return insert


def whole(value: Gathered) -> Any:
    """A video all of whose frames have come to an end."""
    video: Video = value.value
    for each in value.results:
        video.times_us += each.times_us
    video.tally.written += len(video.times_us)
    error = video.error
    if error is None and video.first_error is not None:
        tally, first = video.tally, video.first_error
        error = ChildrenFailedError(
            f"{tally.dead} of {tally.created} frames failed; the first: {type(first).__name__}: {first}"
        )
        error.__cause__ = first
    if error is None:
        return Finished(video)
    return Outcome(failures=[VideoFailure(video.key, error, 1, video.ordinal, video, stage=video.stage)])
