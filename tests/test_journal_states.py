"""Outcomes by ordinal: against a plain list."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.journal import Counts, Outcome, States
from penstock.engine.journal import states as module
from penstock.engine.journal.states import MOST_SINKS, RECORD
from penstock.errors import AccountingError

TOTAL = 200

RANGES = st.tuples(st.integers(0, TOTAL), st.integers(0, 40)).map(lambda at: range(at[0], min(TOTAL, sum(at))))
ORDINALS = st.lists(st.one_of(st.integers(0, TOTAL - 1), RANGES), max_size=8)
STEPS = st.lists(st.tuples(st.sampled_from(Outcome), ORDINALS), max_size=12)


def as_numbers(ordinals: list[int | range]) -> set[int]:
    return {number for one in ordinals for number in (one if isinstance(one, range) else (one,))}


def as_list(states: States) -> list[Outcome]:
    return [states[ordinal] for ordinal in range(len(states))]


@pytest.mark.slow
@given(STEPS, st.sampled_from([7, 64, 1 << 20]))
@settings(max_examples=150, deadline=None)
def test_outcomes_are_those_of_a_plain_list(steps: list[tuple[Outcome, list[int | range]]], chunk: int) -> None:
    """Any order, overlaps and repeats; counts, ranges and what a new journal would hold agree, whatever the chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        states, plain = States.undone(TOTAL), [Outcome.UNDONE] * TOTAL
        loaded = States.undone(TOTAL)
        for outcome, ordinals in steps:
            records = states.records(outcome, ordinals)
            states.apply(records)
            assert loaded.load(records)
            for number in as_numbers(ordinals):
                plain[number] = outcome
        assert as_list(states) == as_list(loaded) == plain
        states.check()
        undone, written, filtered, dead = (plain.count(outcome) for outcome in Outcome)
        assert states.counts == Counts(TOTAL, written, filtered, dead, undone)
        groups = [(outcome, [*each]) for outcome, each in groupby(range(TOTAL), plain.__getitem__)]
        for outcome in Outcome:
            expected = [range(each[0], each[-1] + 1) for one, each in groups if one is outcome]
            assert list(states.ranges(outcome)) == expected
        again = States.undone(TOTAL)
        assert all(again.load(run) for run in states.runs())
        assert as_list(again) == plain


def test_neighbours_become_one_record() -> None:
    """A batch whose rows come in any order takes 17 bytes, not 17 a row."""
    states = States.undone(100)
    numbers = np.random.default_rng(1).permutation(64)
    assert states.records(Outcome.WRITTEN, numbers).tolist() == [(Outcome.WRITTEN, 0, 64)]
    assert states.records(Outcome.DEAD, range(3, 9)).tolist() == [(Outcome.DEAD, 3, 9)]
    assert states.records(Outcome.DEAD, []).size == 0
    assert states.records(Outcome.DEAD, [range(5, 5)]).size == 0


@pytest.mark.parametrize("ordinals", [[100], [-1], [range(90, 101)], [5, range(-3, 2)]])
def test_ordinals_of_another_source_are_refused(ordinals: list[int | range]) -> None:
    """What is not in the snapshot cannot have an outcome; nothing is changed."""
    states = States.undone(100)
    with pytest.raises(AccountingError, match="100 entries"):
        states.records(Outcome.WRITTEN, ordinals)
    assert states.counts.remaining == 100


def test_what_is_done_ahead_of_it_is_left_out_of_what_remains() -> None:
    """The ranges are computed as they are reached, so a long run does not plan from an old picture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", 10)
        states = States.undone(100)
        states.apply(states.records(Outcome.WRITTEN, [range(5, 8)]))
        remaining = states.ranges()
        assert next(remaining) == range(5)
        states.apply(states.records(Outcome.WRITTEN, [range(50, 100)]))
        assert list(remaining) == [range(8, 50)]


def test_acknowledgements_that_have_no_bit_are_not_kept() -> None:
    """The row of a seventh store is written again; what no penstock writes is no record."""
    states = States.undone(9)
    assert states.acknowledgements(MOST_SINKS, [1, 2]).size == 0
    assert list(states.acknowledged(MOST_SINKS)) == []
    (last,) = states.acknowledgements(MOST_SINKS - 1, [1, 2])
    assert states.load(np.array([last]))
    assert states.acknowledged_by(1) == 1 << (MOST_SINKS - 1)
    assert not states.load(np.array([(4 | Outcome.WRITTEN, 0, 1)], RECORD))


def test_wrong_counts_are_noticed() -> None:
    """The books can fail their check: an outcome that was not counted is found."""
    codes = np.zeros(10, np.uint8)
    states = States(codes)
    codes[3] = Outcome.WRITTEN
    with pytest.raises(AccountingError, match="remaining=10"):
        states.check()
