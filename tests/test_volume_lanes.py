"""The two lanes of a volume worker: shares, full batches, and that neither starves."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from penstock.bench.volume_parts import Around, Undecoded
from penstock.engine.jobs.volumes.batcher import FIRST, REPROCESS
from penstock.tests.scans import WatchedBatcher, config, worker
from penstock.volumes import ImageTask

PATCH = 512


def run(
    folder: Path,
    pages: list[tuple[int, int]],
    *,
    rounds: int = 0,
    **settings: int | float,
) -> tuple[list[tuple[str, int]], list[tuple[int, int]]]:
    """Run pages of so many patches, that have been straightened so often.

    Returns:
        Lane and size of each batch, in order; page and patches of each record.
    """
    (folder / "vol").mkdir(exist_ok=True)
    (folder / "vol" / "page").write_bytes(b"any")
    cfg = config(folder, **settings)
    watched = WatchedBatcher(cfg)
    tasks = [ImageTask("vol/page", page=number) for number in range(len(pages))]
    decoder = Undecoded(lambda task: (pages[task.page][0] * PATCH, pages[task.page][1]))
    done = worker(folder, cfg, tasks=tasks, decoder=decoder, batcher=watched, transform=Around(lambda _: rounds))
    done.run_sync()
    return watched.batches, sorted((record.page, record.patches) for record in done.records)


def test_the_reprocess_lane_has_three_turns_of_four_while_both_are_full(tmp_path: Path) -> None:
    """And a batch of first looks waits for three others at most."""
    batches, records = run(tmp_path, [(600, 1), (600, 0)], open_pages=2, batch_timeout=60)
    lanes = [lane for lane, _ in batches]
    both = lanes[lanes.index(FIRST) : len(lanes) - lanes[::-1].index(REPROCESS)]
    share = Counter(both)
    assert share[REPROCESS] / share[FIRST] == pytest.approx(3, abs=0.15)
    turns = [number for number, lane in enumerate(both) if lane == FIRST]
    assert max(after - before for before, after in pairwise(turns)) <= 5
    assert records == [(0, 600), (1, 600)]


def test_the_weight_is_a_setting(tmp_path: Path) -> None:
    """One to one where it is asked for."""
    batches, _ = run(tmp_path, [(400, 1), (400, 0)], open_pages=2, batch_timeout=60, reprocess_weight=1)
    lanes = Counter(lane for lane, _ in batches[:150])
    assert lanes[REPROCESS] == pytest.approx(lanes[FIRST], abs=4)


def test_batches_are_full_but_for_the_tails(tmp_path: Path) -> None:
    """Patches of several pages lie in one batch; a short batch of each lane comes at the end."""
    batches, records = run(tmp_path, [(3, 0)] * 9, batch_size=8, batch_timeout=60)
    assert records == [(number, 3) for number in range(9)]
    assert sorted(size for _, size in batches) == [3, 8, 8, 8]


def test_what_goes_round_comes_in_batches_of_its_own(tmp_path: Path) -> None:
    """Each page once by the first lane, and as often as it goes round by the other."""
    batches, records = run(tmp_path, [(5, 0)] * 4, rounds=2, batch_size=4)
    patches = Counter[str]()
    for lane, size in batches:
        patches[lane] += size
    assert patches == {FIRST: 20, REPROCESS: 40}
    assert records == [(number, 5) for number in range(4)]


def test_a_page_that_comes_alone_does_not_wait_for_others(tmp_path: Path) -> None:
    """The longest wait ends its batch, and so does the end of the volume."""
    batches, _ = run(tmp_path, [(1, 0)], rounds=1, batch_size=16, batch_timeout=0.01)
    assert batches == [(FIRST, 1), (REPROCESS, 1)]
