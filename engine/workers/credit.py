"""How many slots may be in use at once: as many as keep the embedder busy, not all that there are."""

from __future__ import annotations

from collections.abc import Callable


class Credit:
    """Follows how fast slots are drained, between two slots for each worker and all of them.

    Batches that lie and wait gain nothing: they only age, and every slot that is used in turn is pixels that have left
    the caches before they are read. So the credit rises by one whenever a slot is given back and no other batch lies
    ready (the embedder is about to wait), and falls by one whenever a batch becomes ready behind more than one waiting
    batch per worker.

    Args:
        workers: worker processes.
        slots: slots of all of them together.

    Attributes:
        limit: slots that may be in use.
    """

    __slots__ = ("_floor", "_slots", "_workers", "limit")

    def __init__(self, workers: int, slots: int) -> None:
        self._workers = workers
        self._slots = slots
        self._floor = min(slots, 2 * workers)
        self.limit = self._floor

    def allows(self, used: Callable[[], int]) -> bool:
        """Whether one more slot may be used. `used` counts those that are; only asked if it matters, as below."""
        return self.limit == self._slots or used() < self.limit

    def given_back(self, ready: Callable[[], int]) -> None:
        """A slot was given back. `ready` counts the batches that lie ready."""
        if self.limit < self._slots and not ready():
            self.limit += 1

    def became_ready(self, ready: Callable[[], int]) -> None:
        """A batch became ready, and is counted with the others."""
        if self.limit > self._floor and ready() > self._workers + 1:
            self.limit -= 1
