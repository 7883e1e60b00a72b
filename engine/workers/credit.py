"""How many slots may be in use at once: as many as keep the embedder busy, not all that there are."""

from __future__ import annotations


class Credit:
    """Follows how fast slots are drained, between two slots for each worker and all of them.

    Batches that lie and wait gain nothing: they only age, and every slot that is used in turn is pixels that have left
    the caches before they are read. So the credit rises by one whenever a slot is given back and no other batch lies
    ready (the embedder is about to wait), and falls by one whenever a batch becomes ready behind more than one waiting
    batch per worker.

    Args:
        workers: worker processes.
        slots: slots of all of them together.
    """

    __slots__ = ("_floor", "_slots", "_workers", "limit")

    def __init__(self, workers: int, slots: int) -> None:
        self._workers = workers
        self._slots = slots
        self._floor = min(slots, 2 * workers)
        self.limit = self._floor

    def given_back(self, ready: int) -> None:
        """A slot was given back while so many batches lie ready."""
        if not ready:
            self.limit = min(self._slots, self.limit + 1)

    def became_ready(self, ready: int) -> None:
        """A batch became ready; so many lie ready now, this one included."""
        if ready > self._workers + 1:
            self.limit = max(self._floor, self.limit - 1)
