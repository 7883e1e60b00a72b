"""Searching with one picture: it goes through one worker process, without JAX in this one.

The worker's fork server imports JAX, and the worker makes the vector, while this process imports the store's client and
connects; in one process they would take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ....errors import SharedMemoryError
from ....preprocess import Source
from ....sinks import Hit
from ... import Outcome, PipelineBuilder, PlainValues, green
from ...config.model import ServiceConfig
from ...embedders import ArrayView
from ...workers import warm_start
from ..common.plan import Plan
from .inputs import as_source
from .pipeline import ImageEmbeddingPipeline

if TYPE_CHECKING:
    from ...workers import PreprocessPool


def search_images(config: ServiceConfig, image: Any, k: int = 10) -> list[Hit]:
    """The ``k`` pictures of the collection nearest to ``image``; see ``ImageEmbeddingPipeline.search``.

    The query is embedded as the collection was, unless the configuration says how.
    """
    with config.spelled(), warm_start(), ImageEmbeddingPipeline(config) as pipeline:
        plan, source = pipeline.plan, as_source(image)
        said = config.model_fields_set & {"embedder", "preset", "image_size", "dtype"}
        try:
            # While the store comes up and says how the collection was made: most were made as a new one would be.
            query = query_vector(plan, pipeline.config, source, beside=(lambda: None) if said else pipeline.adopt)
            if not pipeline.plan.makes_as(plan):
                query = query_vector(pipeline.plan, pipeline.config, source)
        except SharedMemoryError:  # not even room for one batch
            if not said:
                pipeline.adopt()
            query = image
        return pipeline.search(query, k)


class _OneBatch(PlainValues):
    """The value is a slot; it gives it back when nobody takes it."""

    def discard(self, value: Any) -> None:
        value.release()


def query_vector(
    plan: Plan, config: ServiceConfig, source: Source, beside: Callable[[], object] = lambda: None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vector ``[D]`` float32 of one picture, made as a job makes it.

    Args:
        plan: what makes it; its embedder is opened here if it does not run in the worker, and closed.
        config: settings; batches are as large as a job's, so that its compiled programs are used again.
        source: the picture.
        beside: called in this thread while the worker starts and works.

    Raises:
        ItemError: the picture cannot be used.
        SharedMemoryError: there is no room for one batch.
        WorkerStartError: the worker cannot start.
        PipelineFailure: the worker cannot be kept alive.
    """
    embedder = plan.embedder
    if embedder.runs != "worker":
        embedder.open(plan.spec, config.batch_size)
    pool = plan.pool(config.model_copy(update={"workers": 1, "slots": 1}))
    helper = ThreadPoolExecutor(1, "penstock-query")
    try:
        preprocessed = helper.submit(_preprocessed, pool, source)
        beside()
        view = preprocessed.result()
        refused = {} if embedder.runs == "worker" else embedder.embed(view, 1)
        if refused:
            raise refused[0]
        vector: np.ndarray[Any, np.dtype[np.float32]] = view.embeddings[0]
        return vector
    finally:
        pool.close()  # before the helper is waited for: it may wait for a start, which comes to nothing by this
        helper.shutdown()
        if embedder.runs != "worker":
            embedder.close()


def _preprocessed(pool: PreprocessPool, source: Source) -> ArrayView:
    """Copies of a slot's arrays with this one picture in it."""
    try:
        pool.start()

        @green
        def preprocess(picture: Source) -> Outcome:
            return Outcome(pool.process([picture]))

        builder = PipelineBuilder(values=_OneBatch()).add_source([source]).pipe(preprocess, concurrency=1)
        pipeline = builder.add_resource(pool).add_sink(1).build(num_threads=1)
        with pipeline.auto_stop(discard=True):
            slot = next(iter(pipeline))
            try:
                if slot.failures:
                    raise slot.failures[0][1]
                return ArrayView(np.array(slot.view.pixels), np.array(slot.view.embeddings))
            finally:
                slot.release()
    finally:
        pool.close()
