"""The worker process: takes batches from its socket, loads pictures, preprocesses them with JAX, writes into its slot.

One process, one core: decode and kernel run in turn on the main thread, reads run ahead on a few threads when storage
is slow. The process ends when its socket closes. It answers for one task at a time and touches only the slot it was
granted.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, Self, cast

from ...errors import ConfigError, ItemError
from ...fetch import Fetchers
from ...lazy import import_named
from ...shm import Ring, recv_frame_fds, send_frame
from ...shm.protocol import LAYOUT, REFUSED, decode_json, encode_hung, encode_json
from ..decode.decode import bound_pillow
from ..sandbox.sandbox import confine, seal
from ..slot_layout import PixelView, pixel_layout, pixel_view
from ..spec import PreprocessSpec
from .failures import detach_traceback
from .inbox import Inbox
from .jax_runtime import check_device, compilation_cache, keep_no_more_kernels, prepare_jax
from .preprocessor import Preprocessor
from .protocol import Row, Source, Task, Timings, encode_done
from .reader import ReadAhead, Reader
from .settings import WorkerSettings

HUNG_STATUS = 75
"""Exit status of a worker that leaves because an item is over its deadline."""


class Embed(Protocol):
    """What a worker needs of an embedder that runs in it; see ``penstock.engine.embedders`` for the contract."""

    @property
    def dimension(self) -> int: ...
    def open(self, spec: PreprocessSpec, rows: int) -> None: ...
    def embed(self, view: PixelView, rows: int) -> Mapping[int, ItemError]: ...


def main(sock: socket.socket, argument: bytes, _fds: list[int]) -> None:
    """Entry point of a worker process: serve until the parent closes the socket."""
    settings = WorkerSettings.from_json(argument)
    sys.path[:] = settings.path
    try:
        worker = _made(sock, settings)
    except ConfigError as error:
        send_frame(sock, encode_json(REFUSED, str(error)))
        return
    worker.serve()


def _made(sock: socket.socket, settings: WorkerSettings) -> Worker:
    """Set up this process, and what works in it.

    Raises:
        ConfigError: its settings ask for what cannot be had: a device, a decoder, a transform.
    """
    prepare_jax(device=settings.device)
    spec = PreprocessSpec.from_json(settings.spec)
    bound_pillow(spec.max_pixels)
    if settings.sandbox:  # now, because threads and user code come next
        confine(compilation_cache())
    if settings.device is not None:
        check_device(settings.device)
    return Worker(sock, settings, spec)


class Worker:
    """One worker's life: introduce itself, compile, map the ring, then one task after the other."""

    def __init__(self, sock: socket.socket, settings: WorkerSettings, spec: PreprocessSpec) -> None:
        self._sock = sock
        self._spec = spec
        self._rows = settings.rows
        self._sandbox = settings.sandbox
        self._preprocessor = Preprocessor(self._spec, settings.rows)
        self._embed = make_embedder(settings.embedder, self._spec, settings.rows)
        self._reader = Reader(Fetchers(self._spec.max_file_bytes).read, settings.threads)
        self._watch = Watch(sock, settings.item_timeout)
        self._inbox = Inbox(sock, self._reader)
        self._layout = pixel_layout(
            self._rows,
            self._spec.pixel_shape(),
            self._spec.pixel_dtype().name,
            self._embed.dimension if self._embed else settings.dimension,
        )

    def serve(self) -> None:
        """Work until the parent closes the socket."""
        layout = self._layout
        send_frame(self._sock, encode_json(LAYOUT, layout.to_json()))
        compiling = self._preprocessor.warm()
        # What the first batch will surely, or likely, need; meanwhile the parent makes the ring.
        if self._embed:
            self._embed.embed(pixel_view(layout.private_view()), self._rows)
        else:
            next(compiling)
        first = recv_frame_fds(self._sock)
        if first is None:
            return
        frame, fds = first
        ring = Ring.attach(fds[0], layout, decode_json(frame)["slots"])
        self._warm(compiling)
        while (task := self._inbox.next()) is not None:
            self._do(ring, *task)

    def _warm(self, compiling: Iterator[None]) -> None:
        """Compile what else is going to be needed, for as long as no batch is waiting; in a sandbox all of it."""
        if self._is_idle():
            for _ in compiling:
                if not self._is_idle():
                    break
        if self._sandbox:
            keep_no_more_kernels()
            seal(self._spec)

    def _is_idle(self) -> bool:
        """Whether to go on compiling: in a sandbox to the end."""
        return self._sandbox or not self._inbox.has_message

    def _do(self, ring: Ring, task: Task, reads: ReadAhead) -> None:
        view = pixel_view(ring.view(task.slot))
        ring.begin(task.slot, task.generation)
        rows, failures, read, decode = self._load(ring, task, reads)
        begin = time.perf_counter()
        if rows:
            self._preprocessor.run(view.pixels, [row.position for row in rows])
        middle = time.perf_counter()
        if self._embed and rows:
            rows = _without(view, rows, self._embed.embed(view, len(rows)), failures)
        timings = Timings(read, decode, middle - begin, time.perf_counter() - middle)
        ring.commit(task.slot, task.generation, len(rows))
        send_frame(self._sock, encode_done(task, rows, failures, timings))

    def _load(
        self, ring: Ring, task: Task, reads: ReadAhead
    ) -> tuple[list[Row], list[tuple[int, ItemError]], float, float]:
        """Read and decode each picture into the canvas; a failure costs its own row only."""
        rows: list[Row] = []
        failures: list[tuple[int, ItemError]] = []
        read = decode = 0.0
        for position in range(len(task.sources)):
            self._inbox.look()
            ring.mark(task.slot, position)
            with self._watch.over(task, position):
                begin = middle = time.perf_counter()
                source: Source = ""
                try:
                    source = loaded = self._reader.take(reads, position)
                    middle = time.perf_counter()
                    placed = self._preprocessor.load(position, loaded)
                    rows.append(Row(position, placed.width, placed.height))
                except ItemError as error:
                    failures.append((position, detach_traceback(error, source)))
                end = time.perf_counter()
            read += middle - begin
            decode += end - middle
        ring.mark(task.slot, None)
        return rows, failures, read, decode


class Watch:
    """Sees to it that no picture takes for ever.

    A thread cannot be killed, so a worker whose item is over its deadline tells the parent which and leaves; the parent
    replaces it and has the rest of the batch done again. The decoders release the GIL, so this thread gets its turn.
    """

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self._lock = threading.Lock()
        self._current: tuple[float, Task, int] | None = None
        threading.Thread(target=self._run, name="penstock-watch", daemon=True).start()

    def over(self, task: Task, position: int) -> Self:
        """Watch this item while the ``with`` block runs."""
        self._current = (time.monotonic(), task, position)
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        with self._lock:  # either the item is done, or its report is on the way: never both
            self._current = None

    def _run(self) -> None:
        while True:
            time.sleep(min(1.0, self._timeout / 4))
            with self._lock:
                if self._current and time.monotonic() - self._current[0] > self._timeout:
                    _, task, position = self._current
                    send_frame(self._sock, encode_hung(task.slot, task.generation, position))
                    os._exit(HUNG_STATUS)


def _without(
    view: PixelView, rows: list[Row], refused: Mapping[int, ItemError], failures: list[tuple[int, ItemError]]
) -> list[Row]:
    """Rows that the embedder refused become failures; the vectors of the others close up. The pixels do not: nobody
    needs them any more."""
    if not refused:
        return rows
    kept = [row for row in range(len(rows)) if row not in refused]
    view.embeddings[: len(kept)] = view.embeddings[kept]
    failures.extend((rows[row].position, error) for row, error in refused.items())
    return [rows[row] for row in kept]


def make_embedder(reference: Sequence[str] | None, spec: PreprocessSpec, rows: int) -> Embed | None:
    """Make the embedder that runs here. By reference, because this floor does not know the embedders above it."""
    if reference is None:
        return None
    factory, argument = reference
    embedder = cast("Embed", import_named(factory)(argument))
    embedder.open(spec, rows)
    return embedder
