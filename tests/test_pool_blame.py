"""Whom the pool blames for a worker's death, and when it says that a worker stands still."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.workers.hang_detector import Diagnosis, HangDetector
from penstock.engine.workers.poison import PoisonFinder, WorkerLost
from penstock.errors import DeadlineError, PoisonItemError, WorkerError


def death(*, row: int | None = None, begun: bool = True, hung: bool = False) -> WorkerLost:
    return WorkerLost("worker 0 (pid 7)", "exited with status 3", begun=begun, row=row, hung=hung)


def work_off(finder: PoisonFinder, poison: set[int]) -> int:
    """Do a batch whose poison kills the kernel; how many workers it took with it."""
    deaths = 0
    while finder.live:
        if poison & set(finder.part):
            finder.on_worker_lost(death())
            deaths += 1
        elif not finder.on_ok():
            break
    return deaths


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 64).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
def test_exactly_the_pictures_that_kill_the_kernel_are_given_up(drawn: tuple[int, set[int]]) -> None:
    """However many there are, and wherever in the batch; the others are left to be done together."""
    size, poison = drawn
    finder = PoisonFinder(size)
    work_off(finder, poison)
    assert sorted(position for position, _ in finder.failures) == sorted(poison)
    assert all(isinstance(error, PoisonItemError) for _, error in finder.failures)
    assert sorted(finder.live) == sorted(set(range(size)) - poison)
    assert list(finder.part) == finder.live


@pytest.mark.parametrize("size", [1, 2, 32, 1000])
def test_one_picture_is_found_in_a_few_deaths(size: int) -> None:
    """Two, and one for each halving; at least three."""
    assert all(
        work_off(PoisonFinder(size), {at}) <= max(3, 2 + math.ceil(math.log2(size))) for at in {0, size // 2, size - 1}
    )


def test_a_batch_that_kills_only_as_a_whole_is_no_pictures_fault() -> None:
    """Each half alone does no harm, as where memory is short: that ends the job, which says the way out."""
    finder = PoisonFinder(4, "picture")
    for _ in range(2):
        finder.on_worker_lost(death())
    for _ in range(2):
        assert len(finder.part) == 2
        assert finder.on_ok()
    for _ in range(2):
        finder.on_worker_lost(death())
    with pytest.raises(WorkerError, match=r"batch of 4 pictures .* --batch-size"):
        finder.on_worker_lost(death())
    assert (finder.live, finder.failures) == ([0, 1, 2, 3], [])


def test_deaths_from_outside_convict_nobody() -> None:
    """Two in the kernel, some before the batch had begun: after that it is done as if nothing had been."""
    finder = PoisonFinder(4)
    for begun in (False, True, False, True, False):
        finder.on_worker_lost(death(begun=begun))
    work_off(finder, set())
    assert (finder.live, finder.failures) == ([0, 1, 2, 3], [])


def test_a_picture_that_is_being_decoded_is_blamed_by_name() -> None:
    """At its third death; at once if it was over its deadline."""
    finder = PoisonFinder(3)
    for _ in range(3):
        finder.on_worker_lost(death(row=1))
    assert finder.live == [0, 2]
    finder.on_worker_lost(death(row=1, hung=True))
    assert finder.live == [0]
    assert [(position, type(error)) for position, error in finder.failures] == [
        (1, PoisonItemError),
        (2, DeadlineError),
    ]


# -- standing still ---------------------------------------------------------------------------------------------------


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that uses the processor."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield process
        process.kill()


def watch(detector: HangDetector, pid: int, *, at_item: bool, looks: int = 60) -> Diagnosis | None:
    """Look at it again and again, at the same thing."""
    pause = threading.Event()
    for _ in range(looks):
        pause.wait(detector.interval)  # looks are counted, and the processor must have had its time between them
        if diagnosis := detector.poll(pid, ("batch", 1), at_item=at_item):
            return diagnosis
    return None


@pytest.mark.slow
def test_a_busy_worker_may_take_its_time_over_a_batch_but_not_over_a_picture(busy: subprocess.Popen[bytes]) -> None:
    """Compiling is no standing still; a decoder that keeps its own watch from running is."""
    assert watch(HangDetector(0.04, watches_itself=True), busy.pid, at_item=False) is None
    assert watch(HangDetector(0.04, watches_itself=True), busy.pid, at_item=True) is Diagnosis.HUNG


@pytest.mark.parametrize("at_item", [True, False])
def test_a_stopped_worker_stands_still_whatever_it_does(busy: subprocess.Popen[bytes], at_item: bool) -> None:
    """It uses no processor."""
    os.kill(busy.pid, signal.SIGSTOP)
    assert watch(HangDetector(0.04, watches_itself=True), busy.pid, at_item=at_item) is Diagnosis.IDLE


def test_a_worker_with_nothing_to_do_may_be_still(busy: subprocess.Popen[bytes]) -> None:
    """So may one that goes from one thing to the next."""
    os.kill(busy.pid, signal.SIGSTOP)
    detector = HangDetector(0.04, watches_itself=True)
    assert not any(detector.poll(busy.pid, None, at_item=False) for _ in range(200))
    assert not any(detector.poll(busy.pid, (number,), at_item=True) for number in range(200))
