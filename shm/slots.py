"""The books of a ring: which slot is whose. Plain memory of the parent: no death of a process can disorder it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class SlotState(Enum):
    """Whose a slot is.

    ::

        FREE -grant-> GRANTED -ready-> READY -embedding-> EMBEDDING
          ^---take_back, |               |------quarantine----'|
          |   reclaim----'               |                     |
          ^-------------release----------+---------------------'
          ^-lift- QUARANTINED
    """

    FREE = "free"
    GRANTED = "granted"  # the worker's: it writes
    READY = "ready"  # ours: whole, and nobody else touches it
    EMBEDDING = "embedding"  # a server reads it, and may write its embeddings
    QUARANTINED = "quarantined"  # a server was given up on and may still read or write it


class Grant(NamedTuple):
    """The right to one slot, once. ``generation`` tells this grant from every other of the ring."""

    slot: int
    generation: int


@dataclass(slots=True)
class _Entry:
    state: SlotState = SlotState.FREE
    generation: int = 0
    rows: int = 0


class SlotTable:
    """States of the slots of one ring. Never waits and has no locks: it is kept by one thread.

    Every method that takes a grant raises ``RuntimeError`` if that grant is not the slot's last one or its state does
    not allow the step; nothing is changed then. Generations begin at 1, only rise, and are never given twice.

    Args:
        slots: number of slots in the ring.
        generation: the last one that was given in an earlier life of the ring.
    """

    def __init__(self, slots: int, generation: int = 0) -> None:
        if slots < 1:
            raise ValueError(f"a ring needs at least one slot, not {slots}")
        self._entries = [_Entry() for _ in range(slots)]
        # Oldest first: a slot rests as long as possible before it is written again.
        self._free = deque(range(slots))
        self._generation = generation

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def generation(self) -> int:
        """The last one that was given."""
        return self._generation

    def has(self, grant: Grant) -> bool:
        """Whether this is a slot's last grant. It may be one of an earlier life of the ring."""
        return self._entries[grant.slot].generation == grant.generation

    def state(self, slot: int) -> SlotState:
        """The state of a slot."""
        return self._entries[slot].state

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return len(self._free)

    @property
    def ready_slots(self) -> int:
        """Slots that lie ready: whole, and not shown to a server."""
        return sum([entry.state is SlotState.READY for entry in self._entries])

    def counts(self) -> Mapping[SlotState, int]:
        """Slots in each state; they sum up to ``len(self)``."""
        tally = Counter(entry.state for entry in self._entries)
        return {state: tally[state] for state in SlotState}

    def grant(self) -> Grant | None:
        """Give a free slot to the worker, under a new generation; None if there is none."""
        if not self._free:
            return None
        slot = self._free.popleft()
        entry = self._entries[slot]
        self._generation += 1
        entry.state, entry.generation, entry.rows = SlotState.GRANTED, self._generation, 0
        return Grant(slot, entry.generation)

    def take_back(self, grant: Grant) -> None:
        """Nothing lies in a slot that was granted: it is free again.

        Raises:
            RuntimeError: it is not granted, or not by this grant.
        """
        self._free_again(grant.slot, self._entry(grant, "taken back", SlotState.GRANTED))

    def ready(self, grant: Grant, rows: int) -> None:
        """The worker says that the slot holds so many rows.

        Raises:
            RuntimeError: it is not granted, or not by this grant.
        """
        entry = self._entry(grant, "ready", SlotState.GRANTED)
        entry.state, entry.rows = SlotState.READY, rows

    def rows(self, grant: Grant) -> int:
        """Rows of a slot that is ready.

        Raises:
            RuntimeError: it is not ready, or not by this grant.
        """
        return self._entry(grant, "asked for its rows", *_WHOLE).rows

    def embedding(self, grant: Grant) -> None:
        """A server reads the slot from now on.

        Raises:
            RuntimeError: it is not ready.
        """
        self._entry(grant, "embedded", SlotState.READY).state = SlotState.EMBEDDING

    def release(self, grant: Grant) -> None:
        """Nobody needs the slot any more.

        Raises:
            RuntimeError: it is not ready or being embedded: a worker may still write to it, or a server given up on.
        """
        self._free_again(grant.slot, self._entry(grant, "released", *_WHOLE))

    def quarantine(self, grant: Grant) -> None:
        """Its server was given up on (timeout, cancelled) and may still use the slot: keep it out of use.

        Raises:
            RuntimeError: it is not ready or being embedded.
        """
        self._entry(grant, "quarantined", *_WHOLE).state = SlotState.QUARANTINED

    def lift(self, slot: int) -> None:
        """The server is known to be done with the slot: it is free again.

        Raises:
            RuntimeError: it is not quarantined.
        """
        entry = self._entries[slot]
        if entry.state is not SlotState.QUARANTINED:
            raise RuntimeError(f"slot {slot} cannot be lifted: it is {entry.state.value}")
        self._free_again(slot, entry)

    def reclaim(self) -> list[Grant]:
        """The worker is dead: the slots granted to it are free again, and its late messages about them are refused.

        To be called only once the process is known to be gone (``Child.alive`` is False), else it might still write.

        Returns:
            The grants that came to nothing, oldest first: their tasks are to be done again.
        """
        lost = [Grant(slot, e.generation) for slot, e in enumerate(self._entries) if e.state is SlotState.GRANTED]
        lost.sort(key=lambda grant: grant.generation)
        for grant in lost:
            self._free_again(grant.slot, self._entries[grant.slot])
        return lost

    def _entry(self, grant: Grant, step: str, *allowed: SlotState) -> _Entry:
        entry = self._entries[grant.slot]
        if entry.generation != grant.generation:
            raise RuntimeError(
                f"slot {grant.slot} cannot be {step} under generation {grant.generation}: "
                f"it is {entry.state.value} under {entry.generation}"
            )
        if entry.state not in allowed:
            raise RuntimeError(f"slot {grant.slot} cannot be {step}: it is {entry.state.value}")
        return entry

    def _free_again(self, slot: int, entry: _Entry) -> None:
        entry.state = SlotState.FREE
        self._free.append(slot)


_WHOLE = (SlotState.READY, SlotState.EMBEDDING)
