"""The runner of the image job: pictures in batches, in worker processes or in this one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....sinks import Hit
from ... import PipelineBuilder, Report
from ...config.model import ServiceConfig
from ...workers import PreprocessPool
from ..common.checkpoint import JobCheckpoint
from ..common.drive import Interrupt, Watcher
from ..common.in_process import LocalPreprocessor
from ..common.plan import Plan
from ..common.runner import Runner
from ..common.sink_factory import searchable
from .batches import JobValues, PictureFailure, Written
from .entries import batches_of, in_memory, readable
from .graphs import ImageParts, streaming

_logger = logging.getLogger(__name__)


class JobRunner(Runner[PreprocessPool]):
    """Runs graphs of the image job; see `Runner`.

    Args:
        config: what to do.

    Raises:
        ConfigError: a setting is wrong, or pixels and embedder do not fit.
    """

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config, Plan.pool)
        self._local: LocalPreprocessor | None = None
        self._local_threads = 0
        self._warned_unconfined = False

    def close(self) -> None:
        """See `Runner.close`."""
        super().close()
        self._local = None

    def search(self, vector: NDArray[np.float32], k: int, collection: str | None) -> list[Hit]:
        """The rows of a collection nearest to a vector ``[D]``; see ``ImageEmbeddingPipeline.search``."""
        return searchable(self.sink_to_read(collection)).search(vector, k)

    def in_memory(self, source: Iterable[Any]) -> bool:
        """See `Runner.in_memory`."""
        return in_memory(self.config, source)

    def stream(
        self,
        source: Iterable[Any],
        *,
        watcher: Watcher | None = None,
        interrupt: Interrupt | None = None,
        checkpoint: JobCheckpoint | None = None,
    ) -> Report:
        """Run the streaming graph over a source of batches, to the end; see `Runner.stream`."""
        with self.workers(self.config) as pool:
            graph = partial(streaming, pool=pool, embedder=self.plan.embedder)
            return self.run_graph(source, graph, None, 2, watcher=watcher, interrupt=interrupt, checkpoint=checkpoint)

    def run_graph(
        self,
        source: Iterable[Any],
        graph: Callable[[ImageParts], PipelineBuilder],
        collection: str | None,
        threads: int,
        *,
        collect: Callable[[Any], None] = lambda _: None,
        insert_rows: int | None = None,
        watcher: Watcher | None = None,
        interrupt: Interrupt | None = None,
        checkpoint: JobCheckpoint | None = None,
        on_failure: Callable[[str, PictureFailure], None] | None = None,
    ) -> Report:
        """Run one graph over a source of batches, to the end; see `Runner.run`."""
        values = JobValues(self._dead, checkpoint, on_failure)
        return self.run(
            *(source, graph, values, collection, threads),
            collect=_recorder(checkpoint) if checkpoint else collect,
            insert_rows=insert_rows,
            watcher=watcher,
            interrupt=interrupt,
            checkpoint=checkpoint,
        )

    def values_of(self, source: Iterable[Any], entries: Iterable[Any]) -> Iterable[Any]:
        """Batches of pictures; see `Runner.values_of`."""
        return batches_of(self.readable(source, entries), self.config.batch_size, self.batch_bytes)

    def readable(self, source: Iterable[Any], entries: Iterable[Any]) -> Iterable[Any]:
        """Entries of a source as the workers can take them; see ``entries.readable``."""
        return readable(self.config, source, entries, self.plan.spec.max_file_bytes, self.batch_bytes)

    def local_preprocessor(self, threads: int) -> LocalPreprocessor:
        """Preprocessing in this process, for so many threads at once; the embedder is open then."""
        if self.config.sandbox and not self._warned_unconfined:
            self._warned_unconfined = True
            _logger.warning("sandbox: only worker processes are confined; this picture is decoded in this process")
        self._open_embedder(self.config.batch_size)
        if self._local is None or self._local_threads < threads:
            self._local = LocalPreprocessor(self.plan.spec, self.config.batch_size, self.plan.embedder, threads)
            self._local_threads = threads
        return self._local


def _recorder(checkpoint: JobCheckpoint) -> Callable[[Written], None]:
    def record(value: Written) -> None:
        checkpoint.written(value.ordinals)

    return record
