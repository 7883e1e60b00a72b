"""What the rules keep and find, on crops of the demo's photographs and on copies whose origin is known."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from penstock.bench.dedup import judged, make_pictures


@pytest.mark.slow
@pytest.mark.parametrize(
    "count",
    [860, pytest.param(20_000, marks=[pytest.mark.nightly])],
)
def test_distinct_pictures_stay_and_copies_are_found(tmp_path: Path, count: int) -> None:
    """``default`` loses two in a thousand at most and finds 92 % of 18 kinds of copies; ``strict`` loses none."""
    make_pictures(tmp_path, count)
    found = {}
    for rule in ("default", "strict"):
        with judged(str(tmp_path), count, rule) as measure:
            found[rule] = measure()
    assert found["default"]["stay"] >= 99.8
    assert found["default"]["found"] >= 92
    assert found["strict"]["stay"] == 100
    assert found["strict"]["found"] >= 65
