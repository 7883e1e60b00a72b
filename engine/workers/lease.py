"""A batch in a slot: what ``PreprocessPool.process`` returns, and who may touch it until when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ItemError
from ...preprocess.slot_layout import pixel_view
from ...preprocess.worker.protocol import Row, Timings
from ...shm import Grant, Place
from .pool_worker import PoolWorker

Array = np.ndarray[Any, np.dtype[Any]]


class SlotLease:
    """The right to use one slot of one worker's ring until it is given back. Its books are kept on the pool's hub.

    Args:
        worker: whose ring it is.
        grant: which slot, and which use of it.
        in_books: takes a step of the books from any thread, and has it done on the hub; afterwards whoever waits for a
            slot is served.
    """

    __slots__ = ("_in_books", "_pins", "_released", "_shared", "grant", "worker")

    def __init__(self, worker: PoolWorker, grant: Grant, in_books: Callable[[Callable[[], None]], None]) -> None:
        self.worker = worker
        self.grant = grant
        self._in_books = in_books
        self._pins = 0
        self._shared = False
        self._released = False

    def release(self) -> None:
        """We need the slot no more. It is free once nobody pins it. Idempotent."""
        self._in_books(self._release)

    def pin(self) -> Callable[[], None]:
        """On the hub: another process is told of the slot, and may use it until the returned function is called."""
        if not self._shared:
            self._shared = True
            self.worker.mark_shared(self.grant)
        self._pins += 1
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._in_books(self._unpin)

        return end

    def _release(self) -> None:
        if self._released:
            return
        self._released = True
        if self._pins:
            self.worker.quarantine(self.grant)
        else:
            self.worker.release(self.grant)

    def _unpin(self) -> None:
        self._pins -= 1
        if self._released and not self._pins:
            self.worker.lift(self.grant)


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
            self._lease.worker.check(self._lease.grant, len(self.rows))

    def release(self) -> None:
        """Give the slot back. Idempotent; from any thread."""
        lease = self._lease
        if lease:
            lease.release()
        self._lease = self._view = None  # last: a Ctrl-C may come in between, and then it can be released again


def _view(lease: SlotLease) -> LeasedView:
    worker, grant = lease.worker, lease.grant
    memory = pixel_view(worker.view(grant))
    return LeasedView(memory.pixels, memory.embeddings, worker.place(grant), lease)
