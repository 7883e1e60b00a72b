"""The books of a ring."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.shm import Grant, SlotState, SlotTable

FREE, GRANTED, READY, EMBEDDING, QUARANTINED = SlotState


def granted(table: SlotTable) -> Grant:
    grant = table.grant()
    assert grant is not None
    return grant


def bring(table: SlotTable, state: SlotState) -> Grant:
    """A slot in the state."""
    grant = granted(table)
    if state is not GRANTED:
        table.ready(grant, 3)
    if state is EMBEDDING:
        table.embedding(grant)
    if state is QUARANTINED:
        table.quarantine(grant)
    if state is FREE:
        table.release(grant)
    assert table.state(grant.slot) is state
    return grant


def test_a_slot_goes_its_round() -> None:
    """Granted, ready, embedding, free; the counts tell at each step."""
    table = SlotTable(2)
    grant = granted(table)
    assert table.counts() == {FREE: 1, GRANTED: 1, READY: 0, EMBEDDING: 0, QUARANTINED: 0}
    table.ready(grant, 7)
    assert table.rows(grant) == 7
    table.embedding(grant)
    assert table.counts()[EMBEDDING] == 1
    table.release(grant)
    assert table.counts()[FREE] == len(table) == 2


def test_there_are_no_more_grants_than_slots() -> None:
    """And each is for another slot."""
    table = SlotTable(3)
    assert sorted(granted(table).slot for _ in range(3)) == [0, 1, 2]
    assert table.grant() is None


def test_the_slot_that_rested_longest_is_granted_next() -> None:
    """So that whoever is late with it has had the most time."""
    table = SlotTable(3)
    first, second = bring(table, READY), bring(table, READY)
    table.release(second)
    table.release(first)
    assert [granted(table).slot for _ in range(3)] == [2, second.slot, first.slot]


STEPS: dict[str, tuple[Callable[[SlotTable, Grant], object], set[SlotState]]] = {
    "take back": (lambda table, grant: table.take_back(grant), {GRANTED}),
    "ready": (lambda table, grant: table.ready(grant, 1), {GRANTED}),
    "rows": (lambda table, grant: table.rows(grant), {READY, EMBEDDING}),
    "embedding": (lambda table, grant: table.embedding(grant), {READY}),
    "release": (lambda table, grant: table.release(grant), {READY, EMBEDDING}),
    "quarantine": (lambda table, grant: table.quarantine(grant), {READY, EMBEDDING}),
    "lift": (lambda table, grant: table.lift(grant.slot), {QUARANTINED}),
}


@pytest.mark.parametrize("state", list(SlotState), ids=lambda state: state.value)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_allowed_from_its_states_only(step: str, state: SlotState) -> None:
    """A wrong step says what the slot is, and changes nothing."""
    table = SlotTable(1)
    grant = bring(table, state)
    take, allowed = STEPS[step]
    if state in allowed:
        take(table, grant)
    else:
        with pytest.raises(RuntimeError, match=state.value):
            take(table, grant)
        assert table.state(grant.slot) is state


def test_an_old_grant_is_refused() -> None:
    """After the slot went back and out again, the first grant means nothing."""
    table = SlotTable(1)
    old = bring(table, READY)
    table.release(old)
    new = granted(table)
    with pytest.raises(RuntimeError, match=f"generation {old.generation}.*{new.generation}"):
        table.ready(old, 1)
    table.ready(new, 1)


def test_a_dead_worker_gives_back_what_it_was_granted() -> None:
    """Its grants come back oldest first, its late answers are refused, and what is ready stays ready."""
    table = SlotTable(4)
    done, first, second = bring(table, READY), granted(table), granted(table)
    assert table.reclaim() == [first, second]
    assert table.counts() == {FREE: 3, GRANTED: 0, READY: 1, EMBEDDING: 0, QUARANTINED: 0}
    with pytest.raises(RuntimeError):
        table.ready(first, 1)
    table.release(done)
    assert table.reclaim() == []


def test_a_quarantined_slot_is_out_of_use_until_it_is_lifted() -> None:
    """Its grant has no power over it any more."""
    table = SlotTable(1)
    grant = bring(table, QUARANTINED)
    assert table.grant() is None
    assert table.reclaim() == []
    table.lift(grant.slot)
    assert granted(table).generation > grant.generation


def test_a_ring_needs_a_slot() -> None:
    """None would wait for ever."""
    with pytest.raises(ValueError, match="at least one"):
        SlotTable(0)
