"""The credit between slots and embedder: it rises while the embedder waits, and falls while batches lie and age."""

from __future__ import annotations

import pytest

from penstock.engine.workers.credit import Credit


def test_it_begins_with_two_slots_for_each_worker() -> None:
    """One to write and one whose files are read ahead: what a worker needs to be busy."""
    assert Credit(workers=3, slots=12).limit == 6


def test_a_ring_of_one_slot_each_is_used_whole() -> None:
    """The floor is never more than there is."""
    credit = Credit(workers=2, slots=2)
    credit.became_ready(lambda: 2)
    assert credit.limit == 2


def test_it_rises_to_all_slots_while_the_embedder_waits() -> None:
    """Each slot that comes back while nothing lies ready adds one, up to what there is."""
    credit = Credit(workers=2, slots=8)
    for expected in (5, 6, 7, 8, 8):
        credit.given_back(lambda: 0)
        assert credit.limit == expected


def test_it_falls_back_while_batches_lie_and_wait() -> None:
    """A batch that becomes ready behind others takes one away, down to what the workers need."""
    credit = Credit(workers=2, slots=8)
    for _ in range(4):
        credit.given_back(lambda: 0)
    for expected in (7, 6, 5, 4, 4):
        credit.became_ready(lambda: 4)
        assert credit.limit == expected


@pytest.mark.parametrize("ready", [1, 2, 3])
def test_one_waiting_batch_per_worker_is_as_it_should_be(ready: int) -> None:
    """The embedder finds its next batch ready, and not more than that: nothing changes."""
    credit = Credit(workers=2, slots=8)
    credit.given_back(lambda: 0)
    credit.given_back(lambda: ready)
    credit.became_ready(lambda: ready)
    assert credit.limit == 5
