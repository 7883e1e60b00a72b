"""Statistics of the benchmarks: medians, ratios within rounds, goals, the table and its JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.bench.result import Goal, Result, Spread, machine, paired, render, tabulate
from penstock.errors import ConfigError

FIGURES = st.floats(min_value=0.5, max_value=1e4)


def test_a_spread_holds_the_median_the_least_and_the_most() -> None:
    """The order of the values does not matter."""
    assert Spread.of([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0)
    assert Spread.of([4.0, 1.0, 2.0, 3.0]).median == 2.5


def test_a_spread_of_nothing_is_refused() -> None:
    """No rounds, no figure."""
    with pytest.raises(ConfigError, match="rounds"):
        Spread.of([])


def test_a_ratio_is_taken_within_each_round() -> None:
    """A variant twice as fast in every round is twice as fast, though the machine slowed down tenfold in between."""
    assert paired([200.0, 20.0, 100.0], [100.0, 10.0, 50.0]) == Spread(2.0, 2.0, 2.0)


def test_the_median_of_ratios_is_not_the_ratio_of_medians() -> None:
    """One disturbed round of the baseline moves the ratio of medians, but not the median of ratios."""
    values, base = [100.0, 90.0, 80.0], [50.0, 45.0, 80.0]
    assert paired(values, base).median == 2.0
    assert Spread.of(values).median / Spread.of(base).median != 2.0


def test_figures_of_different_rounds_cannot_be_paired() -> None:
    """A missing round would shift all that follow."""
    with pytest.raises(ConfigError, match="rounds"):
        paired([1.0, 2.0], [1.0])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(FIGURES, FIGURES, st.floats(min_value=0.1, max_value=10)), min_size=1, max_size=9))
def test_the_weather_of_a_round_does_not_change_a_ratio(rounds: list[tuple[float, float, float]]) -> None:
    """Slowing both variants of a round by the same factor leaves their ratio as it was."""
    calm = paired([a for a, _, _ in rounds], [b for _, b, _ in rounds])
    stormy = paired([a * slow for a, _, slow in rounds], [b * slow for _, b, slow in rounds])
    assert stormy.median == pytest.approx(calm.median)


def test_rows_keep_the_order_of_the_variants_and_refer_to_the_baseline() -> None:
    """The baseline's own ratio is one."""
    table = tabulate("t", "u", {"a": [1.0], "b": [3.0]}, baseline="a")
    assert [row.name for row in table.rows] == ["a", "b"]
    assert [row.ratio for row in table.rows] == [Spread(1.0, 1.0, 1.0), Spread(3.0, 3.0, 3.0)]


def test_a_missing_baseline_leaves_the_ratios_out() -> None:
    """A variant whose library is not installed must not stop the others."""
    table = tabulate("t", "u", {"b": [3.0]}, baseline="a", goals=[Goal("b", 2.0, "a"), Goal("a", 1.0)])
    assert table.baseline is None
    assert table.rows[0].ratio is None
    assert table.verdicts == ()


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("b", 2.9), True),
        (Goal("b", 3.1), False),
        (Goal("b", 3.1, at_most=True), True),
        (Goal("b", 2.9, at_most=True), False),
        (Goal("b", 1.5, "a"), True),
        (Goal("b", 1.6, "a"), False),
    ],
)
def test_goals_are_held_against_figures_or_ratios(goal: Goal, met: bool) -> None:
    """At least and at most, absolute and relative."""
    (verdict,) = tabulate("t", "u", {"a": [2.0], "b": [3.0]}, goals=[goal]).verdicts
    assert verdict.met is met


def test_the_text_says_goals_skipped_variants_notes_and_the_machine() -> None:
    """Everything a reader needs to judge a figure is in the same text."""
    table = tabulate("speed", "pictures/s", {"slow": [10.0], "fast": [5.0]}, baseline="slow", goals=[Goal("fast", 9.0)])
    text = render(Result("demo", (table,), {"other": "torch is not installed"}, ("it rained",)))
    for part in ("speed", "pictures/s", "baseline", "0.500", "MISSED", "other: torch is not installed", "it rained"):
        assert part in text
    assert f"{machine()['cores']} cores" in text


def test_a_result_survives_json_with_every_round() -> None:
    """The file holds more than the table: each round's figure."""
    result = Result("demo", (tabulate("t", "u", {"a": [1.0, 2.0, 4.0]}),))
    data = json.loads(json.dumps(result.to_json()))
    assert data["tables"][0]["rows"][0]["values"] == [1.0, 2.0, 4.0]
    assert data["machine"]["versions"]["numpy"]
