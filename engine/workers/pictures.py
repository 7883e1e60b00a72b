"""Pictures as a kind of work: sources go in, slots of pixels, and of embeddings if need be, come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConfigError, ItemError
from ...preprocess.decode.jpeg import check_decoder
from ...preprocess.limits import over_limit
from ...preprocess.sandbox.sandbox import check_means
from ...preprocess.slot_layout import PIXELS, dimension_of, pixel_layout, pixel_view
from ...preprocess.spec import PreprocessSpec
from ...preprocess.worker.protocol import Done, Row, Source, Timings, decode_done, encode_task
from ...preprocess.worker.settings import WorkerSettings
from ...references import Reference
from ...shm import ArraySpec, Place, SlotLayout
from ...shm.protocol import Message
from .kind import WorkerKind
from .lease import SlotLease
from .picture_server import PICTURE_SERVER
from .pool import SlotPool

ENTRY = "penstock.preprocess.worker.worker:main"

Array = np.ndarray[Any, np.dtype[Any]]


class PictureCodec:
    """Sources as a task has them, and what a worker says of their pixels."""

    def encode(self, slot: int, generation: int, items: Sequence[Source]) -> Message:
        """See ``preprocess.worker.protocol``."""
        return encode_task(slot, generation, items)

    def decode(self, frame: bytes) -> Done:
        """See ``preprocess.worker.protocol``."""
        return decode_done(frame)

    def describe(self, item: Source) -> str:
        """The path, or what its reference is to."""
        return repr(str(item)) if isinstance(item, (str, Reference)) else "one from memory"


class PreprocessPool(SlotPool[Source, Done]):
    """Worker processes that preprocess pictures. A batch goes in, a slot full of pixels comes out.

    Args:
        spec: what to do with each picture.
        workers: processes.
        batch_size: the most pictures in a batch (rows of a slot).
        slots: slots per worker. Two keep a worker busy (one written, one read); each more hides jitter of the embedder.
            Shared memory in all: ``workers * slots * (batch_size * bytes per picture + header)``.
        threads: reads a worker has in flight when storage is slow; None for as many as suit it.
        embedder: ``(factory reference, specification)`` of an embedder that runs in the workers.
        dimension: floats per row that an embedder elsewhere (a thread, Triton) writes into the slot. Of one that runs
            in the workers it may be left out; known, it lets the rings be made before there are workers.
        devices: accelerators, given to the workers in turn.
        item_timeout: seconds one picture may take.
        sandbox: confine each worker before it decodes anything, as far as this machine allows; see ``sandbox``.
        named: keep the segments' names so that another process (Triton) can map them; else they are unlinked at once
            and nothing can stay behind.

    Raises:
        ConfigError: a sandbox was asked for together with accelerators, or on a machine that has no means for it.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        *,
        workers: int,
        batch_size: int = 32,
        slots: int = 3,
        threads: int | None = None,
        embedder: tuple[str, str] | None = None,
        dimension: int = 0,
        devices: Sequence[int] | None = None,
        item_timeout: float = 30.0,
        sandbox: bool = False,
        named: bool = False,
    ) -> None:
        if sandbox and devices:
            raise ConfigError("sandbox and devices exclude one another: a driver opens its device files at any time")
        if sandbox:
            check_means()
        check_decoder(spec)
        self.spec = spec
        self.batch_size = batch_size

        def settings(index: int) -> bytes:
            device = devices[index % len(devices)] if devices else None
            return WorkerSettings(
                spec.to_json(), batch_size, embedder, threads, item_timeout, device, dimension, sandbox
            ).to_json()

        known = not spec.transform and (dimension or embedder is None)  # else only the workers can tell
        layout = _layout(spec, batch_size, dimension) if known else None
        kind = WorkerKind(ENTRY, settings, PictureCodec(), layout, PICTURE_SERVER, item_timeout, "picture", True)
        super().__init__(kind, workers=workers, slots=slots, named=named)

    @property
    def pixels(self) -> ArraySpec:
        """Shape and dtype of one picture's pixels. Known once the pool is started; see ``layout``."""
        return self.layout[PIXELS]

    @property
    def dimension(self) -> int:
        """Floats of one picture's embedding in a slot. Known once the pool is started; see ``layout``."""
        return dimension_of(self.layout)

    def process(self, sources: Sequence[Source]) -> SlotBatch:
        """Preprocess one batch. To be called in a greenlet; returns when the slot is ready.

        Args:
            sources: up to ``batch_size`` pictures: paths, references, file bytes or pixel arrays.

        Returns:
            The slot, with what became of each picture. Release it when done with.

        Raises:
            WorkerError: workers die faster than they work; nothing can be done with this pool any more.
        """
        result = self.run(
            [source if isinstance(source, str) else over_limit(source, self.spec) or source for source in sources]
        )
        done, positions = result.answer, result.positions
        if done is None:
            return SlotBatch([], result.failures, Timings(), None)
        rows = done.rows
        if len(positions) < len(sources):  # some have been given up: the worker counted without them
            rows = [Row(positions[row.position], row.width, row.height) for row in rows]
        return SlotBatch(rows, result.failures, done.timings, result.lease)


def _layout(spec: PreprocessSpec, rows: int, dimension: int) -> SlotLayout:
    return pixel_layout(rows, spec.pixel_shape(), spec.pixel_dtype().name, dimension)


@dataclass(frozen=True, slots=True)
class LeasedView:
    """A slot's memory, for us and for another process; valid until the slot is released.

    Attributes:
        pixels: ``[B, ...]``, the specification's dtype.
        embeddings: ``[B, D]`` float32.
        place: where it lies for a process that maps the segment by its name; None if it has none.
    """

    pixels: Array
    embeddings: np.ndarray[Any, np.dtype[np.float32]]
    place: Place | None
    _lease: SlotLease

    def pin(self) -> Callable[[], None]:
        """Say on the hub that another process may use the slot; call the answer when it is known to be done with it.

        A slot that is released while it is held goes into quarantine until the last pin has ended.
        """
        return self._lease.pin()


class SlotBatch:
    """One preprocessed batch, lying in shared memory.

    Attributes:
        rows: the pictures in the slot; ``rows[i].position`` says which of the batch's sources row ``i`` is.
        failures: ``(position, error)`` of the others, by position.
        timings: seconds of the worker's phases.

    ``pixels`` and ``embeddings`` are views into the ring. They are valid, and the slot is ours alone, until
    ``release``.
    """

    __slots__ = ("_lease", "_view", "failures", "rows", "timings")

    def __init__(
        self, rows: list[Row], failures: Sequence[tuple[int, ItemError]], timings: Timings, lease: SlotLease | None
    ) -> None:
        self.rows = rows
        self.failures = sorted(failures, key=lambda failure: failure[0])
        self.timings = timings
        self._lease = lease
        self._view = _view(lease) if lease else None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def view(self) -> LeasedView:
        """The slot's whole areas: pixels ``[B, ...]`` and embeddings ``[B, D]``; rows from ``len(self)`` on are stale.

        Raises:
            RuntimeError: the slot has been released, or no picture of the batch could be preprocessed.
        """
        if self._view is None:
            raise RuntimeError("this batch holds no slot (released, or every picture failed): its pixels are gone")
        return self._view

    @property
    def pixels(self) -> Array:
        """``[n, ...]`` preprocessed pixels, a view into the ring."""
        return self.view.pixels[: len(self.rows)]

    @property
    def embeddings(self) -> Array:
        """``[n, D]`` float32, a view into the ring; filled already if the embedder runs in the worker."""
        return self.view.embeddings[: len(self.rows)]

    def check(self) -> None:
        """Make sure that nobody else has written here meanwhile.

        Raises:
            StaleSlotError: somebody has; what was read must not be used.
        """
        if self._lease:
            self._lease.check(len(self.rows))

    def release(self) -> None:
        """Give the slot back. Idempotent; from any thread."""
        lease = self._lease
        if lease:
            lease.release()
        self._lease = self._view = None  # last: a Ctrl-C may come in between, and then it can be released again


def _view(lease: SlotLease) -> LeasedView:
    memory = pixel_view(lease.arrays)
    return LeasedView(memory.pixels, memory.embeddings, lease.place, lease)
