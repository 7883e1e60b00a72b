"""Entries with children are done when all their children are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock import ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.children import Children, Done, child_key
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.sources import FileSource, Item
from penstock.errors import AccountingError


def test_an_entry_that_was_not_begun_is_its_own_only_child() -> None:
    """As in the image job: a row, an entry."""
    children = Children()
    assert children.written([3, 4]) == Done([3, 4], [])
    assert children.dead([5]) == Done([], [5])
    children.begin(9)  # also beside one that has children
    assert children.written([6]) == Done([6], [])
    assert children.dead([7]) == Done([], [7])


def test_an_entry_is_done_with_its_last_child_once_no_more_come() -> None:
    """In whatever order its children end, and in one batch with others'."""
    children = Children()
    children.begin(1)
    children.begin(2)
    children.add(1, 2)
    children.add(2)
    assert children.written([1, 2, 1]) == Done([], [])  # more may come
    children.add(1)
    assert children.close(1) == Done([], [])
    assert children.close(2) == Done([2], [])
    assert children.written([1]) == Done([1], [])
    assert children.under_way == 0


def test_one_dead_child_makes_its_entry_dead_when_the_others_are_done() -> None:
    """So that a retry finds it."""
    children = Children()
    children.begin(1)
    children.add(1, 2)
    assert children.close(1) == Done([], [])
    assert children.dead([1]) == Done([], [])
    assert children.written([1]) == Done([], [1])


def test_an_entry_without_children_is_written() -> None:
    """A video of which no frame was wanted."""
    children = Children()
    children.begin(1)
    assert children.close(1) == Done([1], [])


def test_what_does_not_add_up_is_an_error() -> None:
    """Never a record of something that was not done."""
    children = Children()
    children.begin(1)
    with pytest.raises(AccountingError, match="begun twice"):
        children.begin(1)
    with pytest.raises(AccountingError, match="no child under way"):
        children.written([1])
    with pytest.raises(AccountingError, match="not begun"):
        children.add(2)
    with pytest.raises(AccountingError, match="not begun"):
        children.close(2)
    children.add(1)
    children.close(1)
    with pytest.raises(AccountingError, match="closed"):
        children.add(1)


def test_keys_of_children_are_the_same_in_every_run() -> None:
    """They are made of the entry's key and the child's number."""
    assert [child_key("a.mp4", number) for number in range(2)] == ["a.mp4#0", "a.mp4#1"]


class ChildrenMachine(RuleBasedStateMachine):
    """Against a model that keeps every child."""

    def __init__(self) -> None:
        super().__init__()
        self.children = Children()
        self.waiting: dict[int, int] = {}
        self.closed: set[int] = set()
        self.died: set[int] = set()
        self.next = 0

    @rule()
    def begin(self) -> None:
        self.children.begin(self.next)
        self.waiting[self.next] = 0
        self.next += 1

    @precondition(lambda self: self.waiting.keys() - self.closed)
    @rule(data=st.data(), count=st.integers(0, 3))
    def add(self, data: st.DataObject, count: int) -> None:
        entry = data.draw(st.sampled_from(sorted(self.waiting.keys() - self.closed)))
        self.children.add(entry, count)
        self.waiting[entry] += count

    @precondition(lambda self: self.waiting.keys() - self.closed)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(sorted(self.waiting.keys() - self.closed)))
        self.closed.add(entry)
        self.expect(self.children.close(entry), [entry])

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data(), died=st.booleans())
    def settle(self, data: st.DataObject, died: bool) -> None:
        under_way = [entry for entry, count in self.waiting.items() for _ in range(count)]
        batch = data.draw(st.permutations(under_way))[: data.draw(st.integers(1, len(under_way)))]
        for entry in batch:
            self.waiting[entry] -= 1
            self.died |= {entry} if died else set()
        self.expect(self.children.dead(batch) if died else self.children.written(batch), batch)

    def expect(self, done: Done, touched: list[int]) -> None:
        ended = [entry for entry in dict.fromkeys(touched) if entry in self.closed and not self.waiting[entry]]
        assert done.written == [entry for entry in ended if entry not in self.died]
        assert done.dead == [entry for entry in ended if entry in self.died]
        for entry in ended:
            del self.waiting[entry]
            self.closed.discard(entry)

    @invariant()
    def what_is_under_way_is_known(self) -> None:
        assert self.children.under_way == len(self.waiting)


TestChildrenMachine = ChildrenMachine.TestCase
TestChildrenMachine.settings = settings(max_examples=60, deadline=None)


def test_a_job_does_an_entry_again_whose_children_were_not_all_done(tmp_path: Path) -> None:
    """It died between two children of one entry: what was recorded is done, and that one is not."""
    (tmp_path / "films").mkdir()
    for number in range(4):
        (tmp_path / "films" / f"{number}.gif").write_bytes(b"GIF89a")
    config = ServiceConfig(to=str(tmp_path / "rows.db"), job=tmp_path / "job")

    def opened() -> JobCheckpoint:
        return JobCheckpoint(config, make_plan(config), FileSource(str(tmp_path / "films")))

    with opened() as job:
        whole, cut, none, dead = (item.ordinal for item in job.entries() if isinstance(item, Item))
        for entry, children in ((whole, 2), (cut, 3), (none, 0), (dead, 2)):
            job.children.begin(entry)
            job.children.add(entry, children)
            job.close(entry)
        job.written([whole, cut, dead])
        job.dead([dead])
        job.written([cut, whole])
        counts = job.counts
        assert (counts.written, counts.dead, counts.remaining) == (2, 1, 1)
    with opened() as job:
        assert [item.ordinal for item in job.entries() if isinstance(item, Item)] == [cut]
        job.children.begin(cut)
        job.children.add(cut)
        job.written([cut])
        job.close(cut)
        assert job.finished
