"""``ImageEmbeddingPipeline``: pictures into a vector store, three ways, and back out by search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from threading import Event
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from ...errors import ConfigError, EmbedderError
from ...preprocess import PreprocessPool
from ...sinks import DeadLetters, Found, Hit, IndexState, MilvusSink, is_finished
from .. import PipelineBuilder, Report
from ..config import ServiceConfig
from ..threads import DaemonThreads
from .batches import JobValues, Listener, Picture
from .books import JobBooks
from .ceiling import Ceiling, ceiling_of
from .fitting import fitted
from .graphs import Ends, in_turn, overlapped, streaming
from .inputs import as_source, batched, pictures_of
from .keeping import Keeper
from .local import LocalPreprocessor, at_home
from .outcomes import Failure, Outcomes
from .payloads import BATCH_BYTES, with_payloads
from .places import bulk_folder, dead_letters_path
from .plan import Plan, make_plan
from .recipe import plan_of
from .run import Interrupt, Watcher, WithStore, drive
from .store import Store, check_store, rows_per_write
from .stores import Stores
from .warm import WarmPool

_logger = logging.getLogger(__name__)

_WRITE_SECONDS: Final = 0.5
"""Seconds that writes to the store get to end after a pipeline that was stopped; it has given them a second before."""


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
        if config is not None and settings:
            raise ConfigError(f"give a config or settings, not both (config, and {', '.join(settings)})")
        self.config = config or ServiceConfig(**settings)
        with self.config.spelled():
            check_store(self.config)  # refused now, not after the workers have been started
            self._plan = make_plan(self.config)
        self._given = self.config
        self._ceiling: Ceiling | None = None
        self._batch_bytes = BATCH_BYTES
        if self.config.memory is not None:
            self.fit()
        self._stores = Stores()
        self._pool = WarmPool()
        self._local: LocalPreprocessor | None = None
        self._local_threads = 0
        self._opened_for = 0  # pictures in a batch
        self._told_unconfined = False
        self._dead = DeadLetters(dead_letters_path(self.config))
        self._outcomes = Outcomes()
        self.report: Report | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of workers, shared memory, connections and models. Idempotent."""
        with ExitStack() as stack:  # the pool first; what does not close does not keep the others open
            stack.callback(self._dead.close)
            stack.callback(self._plan.embedder.close)
            stack.callback(self._stores.close)
            stack.callback(self._pool.close)
        self._local = None
        self._opened_for = 0

    @property
    def dead_letters(self) -> str:
        """Path of the file that lists what could not be done; there is none while everything could."""
        return str(self._dead.path)

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
        own = self._dimension()
        if dim not in (None, own):
            raise ConfigError(f"dim={dim}, but the embedder {self._plan.embedder.name} makes vectors of {own}")
        self._sink(name)

    def count(self, collection_name: str | None = None) -> int:
        """How many rows the collection holds, exactly."""
        return self._existing_sink(collection_name).count()

    def adopt(self) -> None:
        """Take over embedder and pixels from the configured collection, which must exist and not be in use here yet.

        Raises:
            CollectionMismatchError: there is no such collection.
            ConfigError: its embedder cannot be had here.
        """
        sink = self._stores.to_read(self.config, None, self.config.collection)
        self._plan = plan_of(sink.note, self._plan)

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
        local = self._local_preprocessor(1)

        def graph(ends: Ends) -> PipelineBuilder:
            return in_turn(ends, local, self._plan.embedder)

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
        local = self._local_preprocessor(settings.preprocess_workers)
        room = max(1, settings.queue_maxsize // size)

        def graph(ends: Ends) -> PipelineBuilder:
            return overlapped(
                ends, local, self._plan.embedder, settings.preprocess_workers, settings.embedding_workers, room
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
        asked = self._given.model_copy(update={name: value for name, value in said.items() if value is not None})
        with self._pool.serving():
            pool = self._started(asked, collection_name, in_memory=True)
            self._ceiling, self._batch_bytes = with_payloads(self._pool.ceiling or self.ceiling)

            def graph(ends: Ends) -> PipelineBuilder:
                return streaming(ends, pool, self._plan.embedder)

            return self._insert(pictures, collection_name, graph, pool.batch_size, 2)

    def _insert(
        self,
        pictures: Iterable[Picture],
        collection: str | None,
        graph: Any,
        size: int,
        threads: int,
        insert_rows: int | None = None,
    ) -> list[Any]:
        self._outcomes = outcomes = Outcomes()
        source = batched(outcomes.noting(pictures), size, self._batch_bytes)
        collect = outcomes.written
        self.run(source, graph, collection, threads, collect=collect, insert_rows=insert_rows, listener=outcomes)
        return outcomes.ids

    @property
    def plan(self) -> Plan:
        """The embedder, and the pixels it gets."""
        return self._plan

    @property
    def ceiling(self) -> Ceiling:
        """The most memory that ``stream`` takes with the configured settings."""
        if self._ceiling is None:
            self._ceiling = ceiling_of(self._plan, self.config)
        return self._ceiling

    @property
    def batch_bytes(self) -> int:
        """Bytes of pictures in memory that a batch may have."""
        return self._batch_bytes

    def fit(
        self, entries: int | None = None, letters: int = 0, room: int | None = None, *, in_memory: bool = False
    ) -> None:
        """Make what the configuration leaves open fit into its ``memory`` and ``/dev/shm``; see `fitting.fitted`.

        Args:
            entries: see `fitting.fitted`; likewise letters and room.
            letters: of the job's books.
            room: bytes of ``/dev/shm``.
            in_memory: whether pictures come as bytes or arrays, which then count.

        Raises:
            ConfigError: it cannot be; of ``/dev/shm`` a SharedMemoryFullError.
        """
        self.config, self._ceiling = fitted(self._plan, self._given, entries, letters, room, in_memory=in_memory)
        if in_memory:
            self._ceiling, self._batch_bytes = with_payloads(self._ceiling)

    def finish_store(self) -> None:
        """Do what an earlier run left undone in the store after its last row: merge the parts of a bulk folder."""
        folder = bulk_folder(self.config)
        if folder is not None and not is_finished(folder):
            self._sink(None)  # closing it does the rest

    def look(self) -> Found | None:
        """What the configured collection holds, without making it; None where there is none.

        Raises:
            SinkError: the store cannot be asked.
        """
        return self._stores.look(self.config, self.config.collection)

    def keep_rows(self) -> None:
        """What is in the store stays there, also where the configuration says ``overwrite``: it is this job's."""
        self.config = self.config.model_copy(update={"mode": "append"})

    def accept_pixels(self) -> None:
        """Add to a collection of another version of the pixels: that was accepted for the job."""
        self.config = self.config.model_copy(update={"accept_changes": True})

    def stream(
        self,
        source: Iterable[Any],
        *,
        watcher: Watcher | None = None,
        interrupt: Interrupt | None = None,
        books: JobBooks | None = None,
    ) -> Report:
        """Run the streaming graph over a source of batches (``images.batches_of``), to the end.

        With ``books`` what becomes of each picture is recorded there.

        Raises:
            PipelineFailure: the job could not go on, or its failure budget is spent.
        """
        with self._pool.serving():
            pool = self._started(self.config, None)

            def graph(ends: Ends) -> PipelineBuilder:
                return streaming(ends, pool, self._plan.embedder)

            return self.run(source, graph, None, 2, watcher=watcher, interrupt=interrupt, books=books)

    def run(
        self,
        source: Iterable[Any],
        graph: Any,
        collection: str | None,
        threads: int,
        *,
        collect: Callable[[Any], None] = lambda _: None,
        insert_rows: int | None = None,
        watcher: Watcher | None = None,
        interrupt: Interrupt | None = None,
        books: JobBooks | None = None,
        listener: Listener | None = None,
    ) -> Report:
        """Run one graph over a source of batches, to the end. The report is also kept as ``report``."""
        sink = self._sink(collection)
        if books:
            collect = books.written
            books.writes_to(lambda: sink.note)
        # Nobody waits for them for ever: a store that does not answer must not keep Ctrl-C, or the interpreter's exit.
        writers = DaemonThreads(sink.threads, "penstock-insert")
        rows = insert_rows or self.config.insert_batch_size
        rows = rows_per_write(self.config, rows)
        ends = Ends(source, sink, writers, JobValues(self._dead, books, listener), rows, self.config.policies)
        pipeline = graph(ends).build(
            num_threads=threads,
            max_failures=self.config.max_failures,
            earlier=books.earlier() if books else None,
            sample_memory=1.0,
            stall_after=self.config.stall_after or None,
        )
        try:
            beat = partial(books.beat, self._dead) if books else None
            keeper = Keeper(self.ceiling, lambda: self._pool.family)
            told = WithStore(watcher, sink.stats) if watcher else None
            return drive(pipeline, collect, told, interrupt, beat, keeper.look)
        finally:
            writers.shutdown(wait=False)
            late = writers.join(_WRITE_SECONDS)
            if late:
                _logger.warning("insert: abandoned writes that did not end in time: %s", ", ".join(late))
            report = pipeline.report()
            self.report = replace(report, extra={**report.extra, "store": dict(sink.stats())})

    def wait_index(
        self, seconds: float, told: Callable[[IndexState], None] = lambda _: None, stop: Event | None = None
    ) -> IndexState:
        """Wait until the store's index covers every row of the configured collection.

        Args:
            seconds: to wait at most.
            told: hears how far it is, several times a second.
            stop: ends the waiting early.

        Raises:
            SinkError: it is not done in time; the rows are in the store.
        """
        return self._existing_sink(None).wait_index(seconds, told, stop)

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
        return self._existing_sink(collection_name).search(np.asarray(vector, np.float32), k)

    def embed(self, picture: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vector ``[D]`` of one picture, made in this process.

        Raises:
            ItemError: the picture cannot be used.
        """
        slot = self._local_preprocessor(1).process([as_source(picture)])
        if slot.failures:
            raise slot.failures[0][1]
        with at_home(self._plan.embedder):
            refused = self._plan.embedder.embed(slot.view, 1)
        if refused:
            raise refused[0]
        vector: np.ndarray[Any, np.dtype[np.float32]] = slot.view.embeddings[0].copy()
        return vector

    # -- parts, made when first needed --------------------------------------------------------------------------------

    def _open_embedder(self, size: int) -> None:
        if self._opened_for != size:
            self._plan.embedder.close()
            self._opened_for = 0
            with at_home(self._plan.embedder):
                self._plan.embedder.open(self._plan.spec, size)
            self._opened_for = size

    def _local_preprocessor(self, threads: int) -> LocalPreprocessor:
        if self.config.sandbox and not self._told_unconfined:
            self._told_unconfined = True
            _logger.warning("sandbox: only worker processes are confined; this picture is decoded in this process")
        self._open_embedder(self.config.batch_size)
        if self._local is None or self._local_threads < threads:
            self._local = LocalPreprocessor(self._plan.spec, self.config.batch_size, self._plan.embedder, threads)
            self._local_threads = threads
        return self._local

    def _started(self, config: ServiceConfig, collection: str | None, *, in_memory: bool = False) -> PreprocessPool:
        """The workers and the sink, started side by side where the sink need not wait to hear how long vectors are."""
        self._stores.reach(self.config, collection or self.config.collection)
        helper = ThreadPoolExecutor(1, "penstock-start")
        try:
            pool = helper.submit(self._started_pool, config, in_memory)
            if self._plan.embedder.knows_dimension:
                self._sink(collection)
            return pool.result()
        except KeyboardInterrupt:
            self._pool.close()  # a start may take minutes; it comes to nothing by this
            raise
        finally:
            helper.shutdown()

    def _started_pool(self, config: ServiceConfig, in_memory: bool) -> PreprocessPool:
        if self._plan.embedder.runs != "worker":
            self._open_embedder(config.batch_size)
        return self._pool.started(self._plan, config, in_memory=in_memory)

    def _dimension(self) -> int:
        try:
            return self._plan.embedder.dimension
        except EmbedderError:  # known only once it is open, here or in the workers
            if self._pool.dimension is not None and self._plan.embedder.runs == "worker":
                return self._pool.dimension
            self._open_embedder(self._opened_for or self.config.batch_size)
            return self._plan.embedder.dimension

    def _sink(self, name: str | None) -> Store:
        return self._stores.to_write(self.config, self._plan, name or self.config.collection, self._dimension)

    def _existing_sink(self, name: str | None) -> MilvusSink:
        return self._stores.to_read(self.config, self._plan, name or self.config.collection)
