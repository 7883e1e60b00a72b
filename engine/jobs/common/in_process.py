"""Preprocessing in this process, on ordinary memory: for twenty pictures, and for the overlapped threads of ``_async``.

The same ``Preprocessor`` that the workers run, so the pixels are the workers' pixels bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ....errors import ItemError
from ....fetch import Fetchers
from ....preprocess import PreprocessSpec, Row, Source, Timings
from ....preprocess.worker.failures import detach_traceback
from ....preprocess.worker.jax_runtime import on_cpu
from ....references import Reference
from ...embedders import ArrayView, Embedder

if TYPE_CHECKING:
    from ....preprocess import Preprocessor


@dataclass(slots=True)
class LocalSlot:
    """A preprocessed batch in ordinary memory; see ``batches.Slot``."""

    rows: list[Row]
    failures: list[tuple[int, ItemError]]
    timings: Timings
    view: ArrayView

    def check(self) -> None:
        """Nobody else can write here."""

    def release(self) -> None:
        """The memory goes with the object."""


def at_home(embedder: Embedder) -> AbstractContextManager[Any]:
    """Around calls of an embedder in this process: one that belongs into the workers computes on the CPU, as there."""
    return on_cpu() if embedder.runs == "worker" else nullcontext()


class LocalPreprocessor:
    """Makes slots of pictures in the calling thread.

    Args:
        spec: what to make of a picture.
        rows: the most pictures in a batch.
        embedder: opened; says how wide the vectors are.
        threads: how many threads may call at once; each has a canvas of its own.
    """

    def __init__(self, spec: PreprocessSpec, rows: int, embedder: Embedder, threads: int = 1) -> None:
        self._spec = spec
        self._rows = rows
        self._embedder = embedder
        self._fetchers = Fetchers(spec.max_file_bytes)
        self._free: SimpleQueue[Preprocessor] = SimpleQueue()
        with on_cpu():
            from ....preprocess import Preprocessor  # imports JAX, which only this face needs in this process

            for _ in range(threads):
                self._free.put(Preprocessor(spec, rows))

    def process(self, sources: Sequence[Source]) -> LocalSlot:
        """Decode and preprocess one batch of up to ``rows`` pictures."""
        preprocessor = self._free.get()
        try:
            with on_cpu():
                return self._process(preprocessor, sources)
        finally:
            self._free.put(preprocessor)

    def _process(self, preprocessor: Preprocessor, sources: Sequence[Source]) -> LocalSlot:
        view = self._view()
        rows: list[Row] = []
        failures: list[tuple[int, ItemError]] = []
        begin = time.perf_counter()
        for position, source in enumerate(sources):
            try:
                source = self._fetchers.read(source) if isinstance(source, Reference) else source
                placed = preprocessor.load(position, source)
                rows.append(Row(position, placed.width, placed.height))
            except ItemError as error:
                failures.append((position, detach_traceback(error, source)))
        middle = time.perf_counter()
        if rows:
            preprocessor.run(view.pixels, [row.position for row in rows])
        return LocalSlot(rows, failures, Timings(0.0, middle - begin, time.perf_counter() - middle), view)

    def _view(self) -> ArrayView:
        pixels = np.zeros((self._rows, *self._spec.pixel_shape()), self._spec.pixel_dtype())
        return ArrayView(pixels, np.zeros((self._rows, self._embedder.dimension), np.float32))
