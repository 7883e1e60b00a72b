"""One worker's ring and the books of its slots. They outlive the process: a replacement maps the same ring."""

from __future__ import annotations

from collections.abc import Mapping

from ...shm import Grant, Place, Ring, SlotLayout, SlotState, SlotTable, SlotView


class WorkerSlots:
    """The slots of one worker. Kept on the pool's hub, but for `make` and `close`, which who calls them keeps apart.

    Args:
        count: how many there are.
        named: keep the ring's name, so that another process can map it.
    """

    def __init__(self, count: int, named: bool) -> None:
        self._count = count
        self._named = named
        self._table = SlotTable(count)
        self._ring: Ring | None = None

    @property
    def ring(self) -> Ring | None:
        """The ring, from `make` to `close`."""
        return self._ring

    def make(self, layout: SlotLayout) -> Ring:
        """The ring; made if there is none of this layout.

        Raises:
            SharedMemoryFullError: /dev/shm has no room for it.
        """
        if self._ring is None or self._ring.layout != layout:
            self._unmap()
            self._ring = Ring.create(layout, self._count)
            if not self._named:
                self._ring.unlink()
        return self._ring

    def close(self) -> None:
        """Give the ring back. Whoever still has a slot may give it back later: no later slot is mistaken for it."""
        self._unmap()
        self._table = SlotTable(self._count, self._table.generation)

    def _unmap(self) -> None:
        ring, self._ring = self._ring, None
        if ring:
            ring.unlink()
            ring.close()

    # -- a slot's memory ----------------------------------------------------------------------------------------------

    def view(self, grant: Grant) -> SlotView:
        """The slot's arrays."""
        assert self._ring is not None
        return self._ring.view(grant.slot)

    def check(self, grant: Grant, rows: int) -> None:
        """Raise StaleSlotError unless the slot still holds this grant's rows."""
        assert self._ring is not None
        self._ring.check(grant.slot, grant.generation, rows)

    def place(self, grant: Grant) -> Place | None:
        """Where the slot lies for a process that maps the ring by its name, if it keeps one."""
        return self._ring.place(grant.slot) if self._ring is not None and self._named else None

    def progress(self, grant: Grant) -> tuple[bool, int | None]:
        """Whether the worker has begun this task, and at which item it says it is, which may be anything."""
        ring = self._ring
        return ring.progress(grant.slot, grant.generation) if ring is not None else (False, None)

    # -- a slot's state -----------------------------------------------------------------------------------------------

    def grant(self) -> Grant | None:
        """A free slot."""
        return self._table.grant()

    def take_back(self, grant: Grant) -> None:
        """A slot that was granted and in which nothing lies."""
        self._table.take_back(grant)

    def mark_ready(self, grant: Grant, rows: int) -> None:
        """The worker has filled so many rows."""
        self._table.ready(grant, rows)

    def mark_shared(self, grant: Grant) -> None:
        """Another process uses the slot from now on."""
        self._table.embedding(grant)

    def release(self, grant: Grant) -> None:
        """The slot is free again. Nothing, if it is one of an earlier life of the ring; as below."""
        if self._table.has(grant):
            self._table.release(grant)

    def quarantine(self, grant: Grant) -> None:
        """The slot is not needed any more, but another process may still use it."""
        if self._table.has(grant):
            self._table.quarantine(grant)

    def lift(self, grant: Grant) -> None:
        """The other process is done with a slot in quarantine: it is free again."""
        if self._table.has(grant):
            self._table.lift(grant.slot)

    def reclaim(self) -> list[Grant]:
        """The worker is dead: see ``SlotTable.reclaim``."""
        return self._table.reclaim()

    @property
    def counts(self) -> Mapping[SlotState, int]:
        """Slots in each state."""
        return self._table.counts()

    @property
    def ready(self) -> int:
        """Slots that lie ready."""
        return self._table.ready_slots

    @property
    def used(self) -> int:
        """Slots that are not free."""
        return len(self._table) - self._table.free
