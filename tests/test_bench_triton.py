"""The witness of the Triton benchmark: how busy a model was, from samples of its server's statistics."""

from __future__ import annotations

import pytest

from penstock.bench.triton_witness import Sample, busy


def run(share: float, requests: int = 100, every: float = 0.04) -> list[Sample]:
    """Samples, twice per request, of a model that works for this share of each request's time."""
    return [Sample(i * every / 2, i // 2, (i // 2) * every * share) for i in range(2 * requests)]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.97])
def test_busy_is_the_share_of_time_the_model_worked(share: float) -> None:
    """Also where samples fall between the ends of requests."""
    assert busy(run(share)) == pytest.approx(share, rel=1e-6)


def test_start_and_end_of_a_run_do_not_count() -> None:
    """A long wait before the first request and after the last is no part of the steady state."""
    samples = run(1.0)
    late = [Sample(at + 100, done, worked) for at, done, worked in samples]
    assert busy([Sample(0, 0, 0), *late, Sample(900, late[-1].done, late[-1].worked)]) == pytest.approx(1.0)


def test_a_model_that_did_nothing_is_an_error() -> None:
    """Rather than a share of nothing."""
    with pytest.raises(ValueError, match="did nothing"):
        busy([Sample(0, 5, 1), Sample(1, 5, 1)])
