"""Waits between attempts."""

from __future__ import annotations

from random import Random

import pytest

from penstock.backoff import Backoff


@pytest.mark.parametrize(("failed", "bound"), [(1, 0.2), (2, 0.4), (3, 0.8), (7, 10.0), (5000, 10.0)])
def test_the_bound_doubles_up_to_the_longest(failed: int, bound: float) -> None:
    """However many attempts have failed."""
    waits = [Backoff(0.2, 10.0).delay(failed, Random(seed)) for seed in range(200)]
    assert 0.9 * bound < max(waits) <= bound
    assert min(waits) < 0.1 * bound


def test_a_wait_takes_its_least_share() -> None:
    """Where a full jitter would ask at once, too often."""
    waits = [Backoff(1.0, 10.0, least=0.5).delay(1, Random(seed)) for seed in range(200)]
    assert 0.5 <= min(waits) < 0.55
    assert 0.95 < max(waits) <= 1.0
