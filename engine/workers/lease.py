"""The lease of a slot: who may touch it until when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...shm import Grant, Place, SlotView
from .pool_worker import PoolWorker


class SlotLease:
    """The right to use one slot of one worker's ring until it is given back. Its books are kept on the pool's hub.

    Args:
        worker: whose ring it is.
        grant: which slot, and which use of it.
        in_books: takes a step of the books from any thread, and has it done on the hub; afterwards whoever waits for a
            slot is served.
    """

    __slots__ = ("_in_books", "_pins", "_released", "_shared", "grant", "worker")

    def __init__(
        self, worker: PoolWorker[Any, Any], grant: Grant, in_books: Callable[[Callable[[], None]], None]
    ) -> None:
        self.worker = worker
        self.grant = grant
        self._in_books = in_books
        self._pins = 0
        self._shared = False
        self._released = False

    @property
    def arrays(self) -> SlotView:
        """The slot's arrays, views into the ring; valid until it is released."""
        return self.worker.slots.view(self.grant)

    @property
    def place(self) -> Place | None:
        """Where the slot lies for a process that maps the ring by its name; None if it has none."""
        return self.worker.slots.place(self.grant)

    def check(self, rows: int) -> None:
        """Make sure that the slot still holds so many rows, and nobody else has written here meanwhile.

        Raises:
            StaleSlotError: somebody has; what was read must not be used.
        """
        self.worker.slots.check(self.grant, rows)

    def release(self) -> None:
        """We need the slot no more. It is free once nobody pins it. Idempotent."""
        self._in_books(self._release)

    def pin(self) -> Callable[[], None]:
        """On the hub: another process is told of the slot, and may use it until the returned function is called."""
        if not self._shared:
            self._shared = True
            self.worker.slots.mark_shared(self.grant)
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
            self.worker.slots.quarantine(self.grant)
        else:
            self.worker.slots.release(self.grant)

    def _unpin(self) -> None:
        self._pins -= 1
        if self._released and not self._pins:
            self.worker.slots.lift(self.grant)
