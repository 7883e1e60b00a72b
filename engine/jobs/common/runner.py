"""One set of workers and stores, and how the graphs of a job are run over them, whatever its items are."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from ....errors import EmbedderError
from ....sinks import DeadLetters, Found, Sink
from ... import PipelineBuilder, Report
from ...config.model import ServiceConfig
from ...config.stores import with_settings
from ...core.threads import DaemonThreads
from ...sources import Source
from ...workers.pool import SlotPool
from .autosize import fit_to_memory
from .checkpoint import JobCheckpoint
from .drive import Interrupt, Watcher, WithFigures, drive
from .in_process import at_home
from .memory_estimate import MemoryEstimate, estimate_memory
from .memory_monitor import MemoryMonitor
from .output_paths import dead_letters_path
from .parts import JobParts, V
from .payloads import BATCH_BYTES, with_payloads
from .plan import Plan, make_plan
from .pool_cache import PoolCache
from .provenance import plan_of
from .sink_cache import SinkCache
from .sink_factory import job_sink

_logger = logging.getLogger(__name__)

_WRITE_SECONDS: Final = 0.5
"""Seconds that writes to the store get to end after a pipeline that was stopped; it has given them a second before."""


P = TypeVar("P", bound=SlotPool[Any, Any])


class Runner(ABC, Generic[P]):
    """Runs graphs of a job, one after the other; workers and connections stay open in between. To be closed.

    Args:
        config: what to do.
        make_pool: makes the worker processes of a plan, not started; an embedder that runs elsewhere is open then.

    Attributes:
        given: what was asked for.
        config: the same, with what was left open in it made to fit.
        plan: the embedder, and the pixels it gets.
        report: the last run's figures; None while there has been none.

    Raises:
        ConfigError: a setting is wrong, or pixels and embedder do not fit.
    """

    def __init__(self, config: ServiceConfig, make_pool: Callable[[Plan, ServiceConfig], P]) -> None:
        self.config = config
        with config.spelled():
            job_sink(config)  # refused now, not after the workers have been started
            self.plan: Plan = make_plan(config)
        self.given = config
        self._ceiling: MemoryEstimate | None = None
        self._batch_bytes = BATCH_BYTES
        if config.memory is not None:
            self.fit()
        self._stores = SinkCache()
        self._pool = PoolCache(make_pool)
        self._opened_for = 0  # pictures in a batch
        self._dead = DeadLetters(dead_letters_path(config))
        self.report: Report | None = None

    def close(self) -> None:
        """Let go of workers, shared memory, connections and models. Idempotent."""
        with ExitStack() as stack:  # the pool first; what does not close does not keep the others open
            stack.callback(self._dead.close)
            stack.callback(self.plan.embedder.close)
            stack.callback(self._stores.close)
            stack.callback(self._pool.close)
        self._opened_for = 0

    @property
    def dead_letters(self) -> str:
        """Path of the file that lists what could not be done; there is none while everything could."""
        return str(self._dead.path)

    # -- memory -------------------------------------------------------------------------------------------------------

    @property
    def ceiling(self) -> MemoryEstimate:
        """The most memory that ``stream`` takes with the configured settings."""
        if self._ceiling is None:
            self._ceiling = estimate_memory(self.plan, self.config)
        return self._ceiling

    @property
    def batch_bytes(self) -> int:
        """Bytes of pictures in memory that a batch may have."""
        return self._batch_bytes

    def fit(
        self,
        source: Iterable[Any] | None = None,
        entries: int | None = None,
        letters: int = 0,
        room: int | None = None,
    ) -> None:
        """Make what the configuration leaves open fit into ``memory`` and ``/dev/shm``; see `autosize.fit_to_memory`.

        Args:
            source: of the job; what it holds in memory counts.
            entries: see `autosize.fit_to_memory`; likewise letters and room.
            letters: of the job's books.
            room: bytes of ``/dev/shm``.

        Raises:
            ConfigError: it cannot be; of ``/dev/shm`` a SharedMemoryFullError.
        """
        payloads = source is not None and self.in_memory(source)
        reading = source.memory(self.plan.spec.max_file_bytes) if isinstance(source, Source) else None
        self.config, self._ceiling = fit_to_memory(
            self.plan, self.given, entries, letters, room, in_memory=payloads, source=reading
        )
        if payloads:
            self._ceiling, self._batch_bytes = with_payloads(self._ceiling)

    # -- stores -------------------------------------------------------------------------------------------------------

    def finish_store(self) -> bool:
        """Do what an earlier run left undone in the store after its last row. Says whether there was something."""
        if not job_sink(self.config).needs_finish:
            return False
        self.sink().finish()  # closing it does the rest
        return True

    def finish_stores(self) -> None:
        """All that was to be written is: show it to others, where that is a step of its own."""
        self._stores.finish()

    def look(self) -> dict[int, Found | None]:
        """What the configured collection holds in each store that keeps rows, by its number; see ``SinkCache.look``.

        Raises:
            SinkError: the store cannot be asked.
        """
        return self._stores.look(self.config, self.config.collection)

    def rows_written(self) -> int | None:
        """Rows that earlier runs have written, where that is not one for each entry that is written."""
        return None

    def keep_rows(self) -> None:
        """What is in the store stays there, also where the configuration says ``overwrite``: it is this job's."""
        stores = [
            with_settings(store.address, {name: said for name, said in store.own.items() if name != "mode"})
            for store in self.config.stores
        ]
        self.config = self.config.model_copy(update={"mode": "append", "to": tuple(stores)})

    def accept_pixels(self) -> None:
        """Add to a collection of another version of the pixels: that was accepted for the job."""
        self.config = self.config.model_copy(update={"accept_changes": True})

    def adopt(self) -> None:
        """Take over embedder and pixels from the configured collection, which must exist and not be in use here yet.

        Raises:
            CollectionMismatchError: there is no such collection.
            ConfigError: its embedder cannot be had here.
        """
        sink = self._stores.to_read(self.config, None, self.config.collection)
        self.plan = plan_of(sink.note, self.plan)

    def sink(self, name: str | None = None) -> Sink:
        """A collection to write to, made if it is not there; default: the configured one.

        Raises:
            CollectionMismatchError: one of this name exists and does not fit.
        """
        return self._stores.to_write(self.config, self.plan, name or self.config.collection, self.dimension)

    def sink_to_read(self, name: str | None = None) -> Sink:
        """A collection that must be there already; default: the configured one.

        Raises:
            CollectionMismatchError: it is not there, or does not fit.
        """
        return self._stores.to_read(self.config, self.plan, name or self.config.collection)

    def indexes(self) -> Iterator[tuple[Sink, float]]:
        """Each store whose index is to be waited for, and for how many seconds."""
        return self._stores.to_wait(self.config, self.plan, self.config.collection)

    # -- running ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def values_of(self, source: Iterable[Any], entries: Iterable[Any]) -> Iterable[Any]:
        """What the graph begins with: entries of a source as workers can take them, or what is said of them.

        Args:
            source: what the entries are of.
            entries: to be done.
        """

    @abstractmethod
    def stream(
        self,
        source: Iterable[Any],
        *,
        watcher: Watcher | None = None,
        interrupt: Interrupt | None = None,
        checkpoint: JobCheckpoint | None = None,
    ) -> Report:
        """Run the job's graph over what `values_of` made, to the end.

        With a ``checkpoint`` what becomes of each entry is recorded there.

        Raises:
            PipelineFailure: the job could not go on, or its failure budget is spent.
        """

    def in_memory(self, source: Iterable[Any]) -> bool:
        """Whether the items of a source come as bytes or arrays, which then count as memory of the job."""
        del source
        return False

    def run(
        self,
        source: Iterable[Any],
        graph: Callable[[JobParts[V]], PipelineBuilder],
        values: V,
        collection: str | None,
        threads: int,
        *,
        collect: Callable[[Any], None] = lambda _: None,
        figures: Callable[[], Mapping[str, Any]] = dict,
        before_flush: Callable[[], object] = lambda: None,
        behind_flush: Callable[[], object] = lambda: None,
        insert_rows: int | None = None,
        watcher: Watcher | None = None,
        interrupt: Interrupt | None = None,
        checkpoint: JobCheckpoint | None = None,
    ) -> Report:
        """Run one graph over a source, to the end. The report is also kept as ``report``.

        Args:
            source: what it begins with.
            graph: declares it.
            values: what the engine is told of its values.
            collection: that rows go into; default: the configured one.
            threads: that plain operations share.
            collect: called with each value that reaches the end.
            figures: of the kind of job, for progress and report.
            before_flush: called before the books are put on the disk, often; of a job that keeps some.
            behind_flush: called behind that, and as often where there are no books.
            insert_rows: rows of one call to the sink; default: as configured.
            watcher: see `stream`; likewise interrupt and checkpoint.
            interrupt: see `stream`.
            checkpoint: see `stream`.
        """
        sink = self.sink(collection)
        if checkpoint:
            checkpoint.writes_to(lambda: [member.note for member in sink.members])
        rows = sink.rows_per_write(insert_rows or self.config.insert_batch_size)
        # Nobody waits for them for ever: a store that does not answer must not keep Ctrl-C, or the interpreter's exit.
        writers = DaemonThreads(sink.writes_at_once(rows), "penstock-insert")
        parts = JobParts(source, sink, writers, values, rows, self.config.policies)
        pipeline = graph(parts).build(
            num_threads=threads,
            max_failures=self.config.max_failures,
            earlier=checkpoint.earlier() if checkpoint else None,
            sample_memory=1.0,
            stall_after=self.config.stall_after or None,
        )
        try:

            def flush() -> None:
                if checkpoint is None or checkpoint.flush(self._dead, before_flush):
                    behind_flush()

            keeper = MemoryMonitor(self.ceiling, lambda: self._pool.family)
            shown = WithFigures(watcher, lambda: {"store": sink.stats(), **figures()}) if watcher else None
            return drive(pipeline, collect, shown, interrupt, flush, keeper.look)
        finally:
            writers.shutdown(wait=False)
            late = writers.join(_WRITE_SECONDS)
            if late:
                _logger.warning("insert: abandoned writes that did not end in time: %s", ", ".join(late))
            report = pipeline.report()
            self.report = replace(report, extra={**report.extra, "store": dict(sink.stats()), **figures()})

    # -- parts, made when first needed --------------------------------------------------------------------------------

    def _open_embedder(self, size: int) -> None:
        if self._opened_for != size:
            self.plan.embedder.close()
            self._opened_for = 0
            with at_home(self.plan.embedder):
                self.plan.embedder.open(self.plan.spec, size)
            self._opened_for = size

    @contextmanager
    def workers(self, config: ServiceConfig, collection: str | None = None, *, in_memory: bool = False) -> Generator[P]:
        """While the block runs its job has the workers to itself; they are started, and its sink is open.

        Args:
            config: how many of them, and what for.
            collection: of the job; default: the configured one.
            in_memory: whether pictures come as bytes or arrays, which then count.

        Raises:
            ConfigError: another job has them, or settings cannot be made to fit.
        """
        with self._pool.serving():
            pool = self._started(config, collection, in_memory)
            if in_memory:
                self._ceiling, self._batch_bytes = with_payloads(self._pool.ceiling or self.ceiling)
            yield pool

    def _started(self, config: ServiceConfig, collection: str | None, in_memory: bool) -> P:
        """The workers and the sink, started side by side where the sink need not wait to hear how long vectors are."""
        self._stores.reach(self.config, collection or self.config.collection)
        helper = ThreadPoolExecutor(1, "penstock-start")
        try:
            pool = helper.submit(self._started_pool, config, in_memory)
            if self.plan.embedder.knows_dimension:
                self.sink(collection)
            return pool.result()
        except KeyboardInterrupt:
            self._pool.close()  # a start may take minutes; it comes to nothing by this
            raise
        finally:
            helper.shutdown()

    def _started_pool(self, config: ServiceConfig, in_memory: bool) -> P:
        if self.plan.embedder.runs != "worker":
            self._open_embedder(config.batch_size)
        return self._pool.started(self.plan, config, in_memory=in_memory)

    def dimension(self) -> int:
        """Floats of a vector; opens the embedder if that is the only way to know."""
        try:
            return self.plan.embedder.dimension
        except EmbedderError:  # known only once it is open, here or in the workers
            if self._pool.dimension is not None and self.plan.embedder.runs == "worker":
                return self._pool.dimension
            self._open_embedder(self._opened_for or self.config.batch_size)
            return self.plan.embedder.dimension
