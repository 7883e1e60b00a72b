"""What every kind of work must hold in a pool of workers: tests to subclass, for your own kind."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import pytest

from ..engine.workers import SlotPool, WorkerKind
from ..errors import ItemError, WorkerError
from ..shm import SlotState
from ..shm.protocol import DONE, HEAD, Hung, decode_answer

DEADLINE = 120.0
"""Seconds that anything may take, on the slowest machine."""

Rows = dict[str, list[bytes]]


class WorkerKindContract(ABC):
    """What holds for every kind of work. Subclasses say how to make one, and which items it takes and refuses."""

    @abstractmethod
    def make(self) -> WorkerKind[Any, Any]:
        """The kind, anew."""

    @abstractmethod
    def good(self) -> Sequence[Any]:
        """Two items or more, each of which makes a row of its own; no more than a slot has rows."""

    @abstractmethod
    def bad(self) -> Any:
        """An item that fails."""

    @pytest.fixture
    def pool(self) -> Iterator[SlotPool[Any, Any]]:
        """Two workers with two slots each, listened to by this thread's hub."""
        with SlotPool(self.make(), workers=2, slots=2) as pool:
            pool.start_in_hub()
            yield pool
            pool.stop_in_hub()
            assert pool.states[SlotState.FREE] == pool.capacity, "slots that nobody has given back"

    def test_items_become_rows(self, pool: SlotPool[Any, Any]) -> None:
        """One each, whole, and nothing fails."""
        rows, failures = done(pool, self.good())
        assert not failures
        assert {len(values) for values in rows.values()} == {len(self.good())}

    def test_the_layout_that_was_said_is_the_one_that_is(self, pool: SlotPool[Any, Any]) -> None:
        """Rings are made for it before a worker has spoken."""
        assert pool.kind.layout in (None, pool.layout)

    def test_the_same_items_make_the_same_rows(self, pool: SlotPool[Any, Any]) -> None:
        """In any worker and slot: what is done again after a death is the same."""
        first = done(pool, self.good())
        assert all(done(pool, self.good()) == first for _ in range(5))

    def test_an_item_that_fails_costs_its_neighbours_nothing(self, pool: SlotPool[Any, Any]) -> None:
        """It is an `ItemError` at its position, and no worker ends by it."""
        good, pids = self.good(), pool.pids
        rows, failures = done(pool, [good[0], self.bad(), *good[1:]])
        assert [position for position, _ in failures] == [1]
        assert isinstance(failures[0][1], ItemError)
        assert rows == done(pool, good)[0]
        assert pool.pids == pids

    def test_a_batch_of_nothing_but_failures_has_no_rows(self, pool: SlotPool[Any, Any]) -> None:
        """And all of its reasons."""
        rows, failures = done(pool, [self.bad()] * len(self.good()))
        assert not any(rows.values())
        assert sorted(position for position, _ in failures) == list(range(len(self.good())))

    def test_workers_that_are_killed_cost_nothing(self, pool: SlotPool[Any, Any]) -> None:
        """Their batches are done again, by others that map the same ring."""
        expected, victims = done(pool, self.good()), pool.pids
        jobs = [gevent.spawn(done, pool, self.good()) for _ in range(8)]
        gevent.sleep(0)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        with gevent.Timeout(DEADLINE):
            assert [job.get() for job in jobs] == [expected] * 8
            while set(victims) & set(pool.pids):  # one of the others may have done it all
                gevent.sleep(0.01)

    def test_a_worker_that_is_stopped_costs_nothing(self) -> None:
        """It is killed after a while, and what it had is done by another."""
        if self.make().item_timeout is None:
            pytest.skip("its items may take as long as they like")
        with SlotPool(self.make(), workers=1, slots=1) as pool:
            pool.start_in_hub()
            expected, (pid,) = done(pool, self.good()), pool.pids
            os.kill(pid, signal.SIGSTOP)
            with gevent.Timeout(DEADLINE):
                assert done(pool, self.good()) == expected
            assert pool.pids != [pid]
            pool.stop_in_hub()

    @pytest.mark.parametrize("rest", [b"", b"\xff", b"[", b"\xff" * 4096], ids=len)
    def test_an_answer_that_makes_no_sense_is_refused(self, rest: bytes) -> None:
        """A worker is not trusted: the pool takes it for dead then, whatever its answer is wrong in."""
        for rows in (0, 1, 2**32 - 1):
            with pytest.raises(WorkerError):
                hear(self.make(), HEAD.pack(DONE, 0, 1, rows) + rest, 2)

    def test_an_item_has_words_for_people(self) -> None:
        """They say what a worker is at."""
        codec = self.make().codec
        assert all(codec.describe(item) for item in self.good())


def hear(kind: WorkerKind[Any, Any], frame: bytes, size: int) -> None:
    """Take a frame for the answer to a task of so many items, as the pool does."""
    answer = decode_answer(frame, kind.codec.decode)
    assert not isinstance(answer, Hung)
    answer.check(size)


def done(pool: SlotPool[Any, Any], items: Sequence[Any]) -> tuple[Rows, list[tuple[int, ItemError]]]:
    """Have a batch done: the bytes of the rows of each array, and the failures."""
    with gevent.Timeout(DEADLINE):
        result = pool.run(items)
    rows: Rows = {array.name: [] for array in pool.layout.arrays}
    if result.answer is not None and result.lease is not None:
        count = len(result.answer.rows)
        rows = {name: [row.tobytes() for row in array[:count]] for name, array in result.lease.arrays.items()}
        result.lease.check(count)
        result.lease.release()
    return rows, list(result.failures)
