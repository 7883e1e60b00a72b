"""The three graphs of the image job, declared on the one engine.

===============  ==============================  ===========================  ==========================
face             preprocess                      embed                        insert
===============  ==============================  ===========================  ==========================
``streaming``    worker processes, into rings    in the worker, a thread or   the sink's threads
                                                 a greenlet
``overlapped``   threads of this process         threads of this process      the sink's threads
``in_turn``      one thread of this process      the same thread              the same thread
===============  ==============================  ===========================  ==========================
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from ....preprocess import Timings
from ....sinks import RowBatch, concat
from ... import NOTHING, ItemFailure, Outcome, PipelineBuilder, green
from ...config.settings import AsyncPipelineConfig
from ...config.types import Stage
from ...core.policies import Policy
from ...embedders import Embedder
from ...workers import PreprocessPool
from ..common.embedding import add_embedding, embed_with
from ..common.in_process import LocalPreprocessor
from ..common.parts import JobParts, add_insert
from .batches import Batch, JobValues, Picture, Rows, Written, preprocessed, take_rows

ImageParts = JobParts[JobValues]


def streaming(parts: ImageParts, pool: PreprocessPool, embedder: Embedder) -> PipelineBuilder:
    """Preprocessing in worker processes; see the table above."""
    return insert_into(embedding(parts.source, parts.values, parts.policies, pool, embedder), parts)


def embedding(
    source: Iterable[Any], values: JobValues, policies: Mapping[Stage, Policy], pool: PreprocessPool, embedder: Embedder
) -> PipelineBuilder:
    """``streaming`` as far as the vectors: what comes out of it is ``Rows``, in no particular order."""

    @green
    def preprocess(batch: Batch) -> Outcome:
        slot = pool.process([picture.source for picture in batch.pictures])
        rest, failures = preprocessed(batch, slot)
        return _outcome(rest, failures, slot.timings)

    builder = (
        PipelineBuilder(values=values)
        .add_source(source)
        .add_resource(pool)
        .pipe(
            preprocess,
            concurrency=pool.capacity,
            parallelism=pool.workers,
            name="preprocess",
            on_failure=policies["preprocess"],
        )
    )
    return add_embedding(builder, pool, embedder, policies["embed"], _rows)


def overlapped(
    parts: ImageParts, local: LocalPreprocessor, embedder: Embedder, settings: AsyncPipelineConfig, room: int
) -> PipelineBuilder:
    """The stages overlapped in threads of this process; ``room`` batches between any two of them."""
    workers = settings.preprocess_workers, settings.embedding_workers
    return insert_into(_in_process(parts, local, embedder, workers, room), parts)


def in_turn(parts: ImageParts, local: LocalPreprocessor, embedder: Embedder) -> PipelineBuilder:
    """Decode, embed and insert batches, to be built with one thread: the baseline."""
    insert = _insert_with(parts)
    return (
        _in_process(parts, local, embedder, (1, 1), 1)
        .pipe(lambda rows: insert([rows]), name="insert", buffer_size=1, on_failure=parts.policies["insert"])
        .add_sink(2)
    )


def _in_process(
    parts: ImageParts, local: LocalPreprocessor, embedder: Embedder, workers: tuple[int, int], room: int
) -> PipelineBuilder:
    preprocess_workers, embedding_workers = workers
    return (
        PipelineBuilder(values=parts.values)
        .add_source(parts.source)
        .pipe(
            _preprocess_with(local),
            concurrency=preprocess_workers,
            name="preprocess",
            buffer_size=room,
            on_failure=parts.policies["preprocess"],
        )
        .pipe(
            embed_with(embedder, parts.policies["embed"], _rows),
            concurrency=embedding_workers,
            name="embed",
            buffer_size=room,
            on_failure=parts.policies["embed"],
        )
    )


def _outcome(rest: Batch | None, failures: list[ItemFailure], timings: Timings) -> Outcome:
    details = {"read": timings.read, "decode": timings.decode, "kernel": timings.kernel}
    return Outcome(NOTHING if rest is None else rest, failures=failures, seconds=sum(details.values()), details=details)


def _preprocess_with(local: LocalPreprocessor) -> Callable[[Batch], Outcome]:
    def preprocess(batch: Batch) -> Outcome:
        slot = local.process([picture.source for picture in batch.pictures])
        return _outcome(*preprocessed(batch, slot), slot.timings)

    return preprocess


def _rows(batch: Batch, refused: Container[int]) -> Any:
    rows = take_rows(batch, refused)
    return rows if rows.pictures else NOTHING


def insert_into(builder: PipelineBuilder, parts: ImageParts) -> PipelineBuilder:
    """The graph so far, whose rows are collected and written by the sink's threads."""
    return add_insert(builder.aggregate(parts.insert_rows), parts, _insert_with(parts)).add_sink(4)


def _insert_with(parts: ImageParts) -> Callable[[list[Rows]], Outcome]:
    def insert(group: list[Rows]) -> Outcome:
        pictures: list[Picture] = [picture for rows in group for picture in rows.pictures]
        batch: RowBatch = concat([rows.rows for rows in group])
        refused = dict(parts.values.write(parts.sink, batch, pictures).refused)
        written = [picture.ordinal for index, picture in enumerate(pictures) if index not in refused]
        failures = [pictures[index].failure(error) for index, error in refused.items()]
        return Outcome(Written(written) if written else NOTHING, failures=failures)

    return insert
