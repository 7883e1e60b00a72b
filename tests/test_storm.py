"""Three storms: real jobs through the command line, each under the faults that its seed says (``storm/``).

``make storm SEEDS=200`` runs as many as a night holds; a seed that fails tells how to run it again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from penstock.engine.journal import Outcome
from penstock.tests.storm.drive import Ended
from penstock.tests.storm.pictures import Leavings, check_leavings
from penstock.tests.storm.seeds import CHANCE, INSIDE, OUTSIDE, Seed
from penstock.tests.storm.whole import check_end, storm

SEEDS = (1, 7, 45)
"""Between them they have every fault, both stores, and embedders in threads and in workers."""

NIGHTLY = (4, 8, 28)


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in NIGHTLY)])
def test_a_job_comes_through_a_storm(seed: int) -> None:
    """Rows, dead letters and books as those of a job that nobody disturbs; no process and no segment left."""
    found = storm(seed)
    assert not found.wrong, str(found)


RIGHT = Leavings(
    rows={"000.png": "one", "shy-00.png": "two"},
    count=2,
    letters={"cut.png": "TruncatedError"},
    outcomes={"000.png": Outcome.WRITTEN, "cut.png": Outcome.DEAD, "shy-00.png": Outcome.WRITTEN},
)
"""What a job leaves that nobody disturbs."""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 3}, "3 rows in the store for 2 pictures: some twice, or of none"),
        ({"rows": {"000.png": "other", "shy-00.png": "two"}}, "000.png: row 'other', undisturbed 'one'"),
        ({"rows": {"000.png": "one"}, "count": 1}, "shy-00.png: written, says the journal, and it is not in the store"),
        ({"letters": {}}, "cut.png: dead, says the journal, and there is no letter"),
        ({"letters": {"cut.png": "ReadError"}}, "cut.png: letter 'ReadError', undisturbed 'TruncatedError'"),
        ({"letters": {**RIGHT.letters, "000.png": "ReadError"}}, "000.png: letter 'ReadError', undisturbed None"),
        ({"outcomes": {**RIGHT.outcomes, "shy-00.png": Outcome.UNDONE}}, "shy-00.png: nothing has become of it"),
        ({"outcomes": {**RIGHT.outcomes, "new.png": Outcome.FILTERED}}, "the listing differs: ['new.png']"),
    ],
)
def test_each_kind_of_damage_would_be_seen(wrong: dict[str, Any], message: str) -> None:
    """The comparison can fail."""
    assert check_leavings(RIGHT, RIGHT) == []
    assert message in check_leavings(replace(RIGHT, **wrong), RIGHT)


@pytest.mark.parametrize(
    ("ended", "message"),
    [
        (Ended(1, "penstock: no", frozenset({"kill a worker"}), False, ()), "exit 1 after 'kill a worker'"),
        (Ended(-15, "", frozenset({"drain"}), False, ()), "exit -15 after drain"),
        (Ended(0, "the books do not balance", frozenset(), False, ()), "its books do not balance"),
        (Ended(0, "Traceback (most recent call last)", frozenset({"drain"}), False, ()), "a traceback"),
        (Ended(0, "", frozenset(), False, ("pid 7: python",)), "process left: pid 7: python"),
        (Ended(-9, "", frozenset({"kill the parent"}), True, ()), "hung"),
    ],
)
def test_an_end_that_no_fault_explains_would_be_seen(ended: Ended, message: str) -> None:
    """Among them a signal that the job's own handlers should have caught."""
    assert check_end(Ended(0, "", frozenset({"kill a worker"}), False, ()), None) == []
    assert message in check_end(ended, None)[0]


def test_a_seed_always_says_the_same() -> None:
    """Or it could not be run again."""
    assert [Seed.of(number) for number in range(20)] == [Seed.of(number) for number in range(20)]
    seed = Seed.of(3)
    assert [seed.fires(fault, 0, 5) for fault in OUTSIDE] == [seed.fires(fault, 0, 5) for fault in OUTSIDE]


def test_the_seeds_reach_every_fault() -> None:
    """Each is on in about a quarter of many storms, and in one of those that run with every push."""
    many = Counter(fault for number in range(400) for fault in Seed.of(number).on)
    assert all(abs(many[fault] / 400 - CHANCE) < 0.1 for fault in OUTSIDE + INSIDE)
    chosen = [Seed.of(number) for number in SEEDS]
    assert {fault for seed in chosen for fault in seed.on} == {*OUTSIDE, *INSIDE}
    assert {seed.store for seed in chosen} == {"lite", "bulk"}
    assert {seed.embedder for seed in chosen} == {"thread", "worker"}
