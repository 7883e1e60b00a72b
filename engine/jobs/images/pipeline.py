"""``ImageEmbeddingPipeline``: pictures into a vector store, three ways, and back out by search."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self

import numpy as np

from ....errors import ConfigError
from ....sinks import Hit
from ... import PipelineBuilder, Report
from ...config.model import ServiceConfig
from ..common.in_process import at_home
from ..common.memory_estimate import MemoryEstimate
from ..common.plan import Plan
from .batches import Picture
from .entries import config_of
from .graphs import ImageParts, in_turn, overlapped, streaming
from .inputs import as_source, batched, pictures_of
from .outcomes import Failure, Outcomes
from .runner import JobRunner


class ImageEmbeddingPipeline:
    """Embeds pictures and keeps their vectors in Milvus. A context manager; workers and connections stay open inside.

    The three ``insert_images*`` methods return the same ids, one for each input, and leave the same rows. A picture
    that cannot be used is None among the ids, says why in ``failures``, and is a dead letter (``dead_letters``);
    ``report`` has the last figures.

    =========================== =============================================== =============================
    method                      how                                             for
    =========================== =============================================== =============================
    ``insert_images``           decode, embed, insert in turn, in this process  a few pictures; the baseline
    ``insert_images_async``     the same stages overlapped in threads           hundreds; a slow store
    ``insert_images_streaming`` worker processes and shared memory              thousands and more
    =========================== =============================================== =============================

    Args:
        config: what to do; default: ``ServiceConfig(**settings)``.
        settings: fields of ``ServiceConfig``, instead of a config.

    Raises:
        ConfigError: a setting is wrong, or pixels and embedder do not fit.
    """

    def __init__(self, config: ServiceConfig | None = None, **settings: Any) -> None:
        self._runner = JobRunner(config_of(config, settings))
        self._outcomes = Outcomes()

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._runner.close()

    def close(self) -> None:
        """Let go of workers, shared memory, connections and models. Idempotent.

        What a store shows only as a whole (``parquet:DIR``) is published before, unless a ``with`` block ended by an
        error.
        """
        try:
            self._runner.finish_stores()
        finally:
            self._runner.close()

    @property
    def config(self) -> ServiceConfig:
        """What to do; what was left open is made to fit into ``memory``."""
        return self._runner.config

    @property
    def plan(self) -> Plan:
        """The embedder, and the pixels it gets."""
        return self._runner.plan

    @property
    def ceiling(self) -> MemoryEstimate:
        """The most memory that streaming takes with the configured settings."""
        return self._runner.ceiling

    @property
    def report(self) -> Report | None:
        """Figures of the last call; None while there has been none."""
        return self._runner.report

    @property
    def dead_letters(self) -> str:
        """Path of the file that lists what could not be done; there is none while everything could."""
        return self._runner.dead_letters

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Why inputs of the last ``insert_images*`` call are not in the store, in input order.

        Each has ``position`` (of the input, from 0), ``key``, ``stage``, ``error`` (class name) and ``message``. Of
        more than 1,000 only the first that failed are here; ``dead_letters`` has all.
        """
        return self._outcomes.failures

    # -- collections --------------------------------------------------------------------------------------------------

    def create_collection(self, name: str | None = None, dim: int | None = None) -> None:
        """Make a collection, or check that the one there is fits. Not needed before inserting: the first insert does
        it.

        Args:
            name: default: the configured one.
            dim: floats of a vector; default: what the embedder makes.

        Raises:
            CollectionMismatchError: one of this name exists and does not fit.
            ConfigError: ``dim`` is not what the embedder makes.
        """
        own = self._runner.dimension()
        if dim not in (None, own):
            raise ConfigError(f"dim={dim}, but the embedder {self.plan.embedder.name} makes vectors of {own}")
        self._runner.sink(name)

    def count(self, collection_name: str | None = None) -> int:
        """How many rows the collection holds, exactly."""
        return self._runner.sink_to_read(collection_name).count()

    def adopt(self) -> None:
        """Take over embedder and pixels from the configured collection, which must exist and not be in use here yet.

        Raises:
            CollectionMismatchError: there is no such collection.
            ConfigError: its embedder cannot be had here.
        """
        self._runner.adopt()

    # -- inserting ----------------------------------------------------------------------------------------------------

    def insert_images(
        self,
        inputs: Iterable[Any],
        ids: Iterable[Any] | None = None,
        metadata: Iterable[dict[str, Any]] | None = None,
        collection_name: str | None = None,
    ) -> list[Any]:
        """Embed and insert in turn, in this process.

        Args:
            inputs: paths, bytes of picture files, PIL images or pixel arrays; read lazily, and kept no longer than it
                takes to decode them. One that is none of these fails alone.
            ids: one per input; default: a hash of the path, or of the content where there is no path.
            metadata: one dict per input, stored with the row.
            collection_name: default: the configured one.

        Returns:
            For each input, in order: its id if it is in the store now, else None; then ``failures`` says why.

        Raises:
            ConfigError: inputs is one picture, or nothing that holds pictures; ids or metadata are not as many.
            PipelineFailure: the job could not go on.
        """
        pictures = pictures_of(inputs, ids, metadata, "insert_images")
        graph = partial(in_turn, local=self._runner.local_preprocessor(1), embedder=self.plan.embedder)
        return self._insert(pictures, collection_name, graph, self.config.batch_size, 1)

    def insert_images_async(
        self,
        inputs: Iterable[Any],
        ids: Iterable[Any] | None = None,
        metadata: Iterable[dict[str, Any]] | None = None,
        collection_name: str | None = None,
        *,
        preprocess_workers: int | None = None,
        embedding_workers: int | None = None,
        insert_batch_size: int | None = None,
        queue_maxsize: int | None = None,
    ) -> list[Any]:
        """Embed and insert with the stages overlapped in threads. Arguments, result and errors as ``insert_images``.

        Args:
            inputs: see ``insert_images``; likewise ids, metadata and collection_name.
            ids: one per input.
            metadata: one dict per input.
            collection_name: default: the configured one.
            preprocess_workers: preprocessing threads; default: ``config.async_pipeline``, as for those below.
            embedding_workers: embedding threads.
            insert_batch_size: rows of one insert.
            queue_maxsize: pictures that may wait between two stages.
        """
        pictures = pictures_of(inputs, ids, metadata, "insert_images_async")
        settings = self.config.async_pipeline.replaced(
            preprocess_workers=preprocess_workers,
            embedding_workers=embedding_workers,
            insert_batch_size=insert_batch_size,
            queue_maxsize=queue_maxsize,
        )
        size = max(1, min(self.config.batch_size, settings.queue_maxsize))
        graph = partial(
            overlapped,
            local=self._runner.local_preprocessor(settings.preprocess_workers),
            embedder=self.plan.embedder,
            settings=settings,
            room=max(1, settings.queue_maxsize // size),
        )
        threads = settings.preprocess_workers + settings.embedding_workers
        return self._insert(pictures, collection_name, graph, size, threads, settings.insert_batch_size)

    def insert_images_streaming(
        self,
        inputs: Iterable[Any],
        ids: Iterable[Any] | None = None,
        metadata: Iterable[dict[str, Any]] | None = None,
        collection_name: str | None = None,
        *,
        batch_size: int | None = None,
        num_preprocess_workers: int | None = None,
    ) -> list[Any]:
        """Embed and insert with worker processes and shared memory. Arguments, result and errors as ``insert_images``.

        One call at a time: a second one, from another thread or from ``inputs``, is a ConfigError.

        Args:
            inputs: see ``insert_images``; likewise ids, metadata and collection_name.
            ids: one per input.
            metadata: one dict per input.
            collection_name: default: the configured one.
            batch_size: pictures in a slot; default: ``config.batch_size``.
            num_preprocess_workers: worker processes; default: ``config.workers``, or the cores there are.
        """
        pictures = pictures_of(inputs, ids, metadata, "insert_images_streaming")
        said = {"batch_size": batch_size, "workers": num_preprocess_workers}
        changes = {name: value for name, value in said.items() if value is not None}
        asked = self._runner.given.model_copy(update=changes)
        with self._runner.workers(asked, collection_name, in_memory=True) as pool:
            graph = partial(streaming, pool=pool, embedder=self.plan.embedder)
            return self._insert(pictures, collection_name, graph, pool.batch_size, 2)

    def _insert(
        self,
        pictures: Iterable[Picture],
        collection: str | None,
        graph: Callable[[ImageParts], PipelineBuilder],
        size: int,
        threads: int,
        insert_rows: int | None = None,
    ) -> list[Any]:
        self._outcomes = outcomes = Outcomes()
        self._runner.run_graph(
            batched(outcomes.noting(pictures), size, self._runner.batch_bytes),
            graph,
            collection,
            threads,
            collect=outcomes.written,
            insert_rows=insert_rows,
            on_failure=outcomes.failed,
        )
        return outcomes.ids

    # -- searching ----------------------------------------------------------------------------------------------------

    def search(self, query: Any, k: int = 10, collection_name: str | None = None) -> list[Hit]:
        """The pictures nearest to this one.

        Args:
            query: a path, bytes of a picture file, a PIL image, an array ``(H, W[, C])``; or a vector ``[D]``.
            k: how many at most.
            collection_name: default: the configured one.

        Returns:
            Hits, nearest first: key, score, path, width, height, metadata.

        Raises:
            ItemError: the query cannot be used.
            SinkError: the store cannot be asked.
        """
        vector = query if isinstance(query, np.ndarray) and query.ndim == 1 else self.embed(query)
        return self._runner.search(np.asarray(vector, np.float32), k, collection_name)

    def embed(self, picture: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vector ``[D]`` of one picture, made in this process.

        Raises:
            ItemError: the picture cannot be used.
        """
        slot = self._runner.local_preprocessor(1).process([as_source(picture)])
        if slot.failures:
            raise slot.failures[0][1]
        with at_home(self.plan.embedder):
            refused = self.plan.embedder.embed(slot.view, 1)
        if refused:
            raise refused[0]
        vector: np.ndarray[Any, np.dtype[np.float32]] = slot.view.embeddings[0].copy()
        return vector
