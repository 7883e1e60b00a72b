"""References that this process reads for confined workers: in order, ahead, and within so many bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import ServiceConfig
from penstock.engine.core.policies import Policy, Retry, Skip, is_transient
from penstock.engine.jobs.common.fetching import fetched
from penstock.engine.jobs.images.entries import readable
from penstock.engine.sources import Filtered, Item, Source
from penstock.errors import ReadError, TooLargeError
from penstock.references import Fetcher, Locator, Reference, Version
from penstock.tests.folder_place import reference
from penstock.tests.waiting import wait_until


def item(wanted: Reference) -> Item:
    return Item(wanted.ref, reference=wanted, ordinal=7, metadata={"a": 1})


def test_items_bring_their_bytes_and_all_keep_their_places(tmp_path: Path) -> None:
    """What has no reference passes; what cannot be read brings why, for its own row."""
    (tmp_path / "x").write_bytes(b"content")
    aside, path = Filtered("n", "no picture"), Item("p", "/p")
    entries: list[Any] = [item(reference(tmp_path, name)) for name in ("x", "gone", "x")]
    first, *middle, gone, last = fetched([entries[0], aside, path, *entries[1:]], 100, 2, 1000, Skip())
    assert first == Item("x", data=b"content", ordinal=7, metadata={"a": 1})
    assert middle == [aside, path]
    assert last == first
    assert isinstance(gone.data, ReadError)
    assert gone.data.__traceback__ is None
    (large,) = fetched([item(reference(tmp_path, "x", 101))], 100, 1, 1000, Skip())
    assert isinstance(large.data, TooLargeError)


class Gate:
    """A fetcher that waits until it is let go, and counts."""

    def __init__(self) -> None:
        self.begun = self.under_way = self.most = 0
        self.open = threading.Event()
        self._lock = threading.Lock()

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        del ref, max_bytes
        with self._lock:
            self.begun += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.open.wait()
        with self._lock:
            self.under_way -= 1
        return bytes(max(1, version.size))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    found = Gate()

    def opened(_: Locator) -> Fetcher:
        return found

    monkeypatch.setattr(Locator, "open", opened)
    yield found
    found.open.set()


@pytest.mark.parametrize(
    ("size", "room", "under_way"),
    [(10, 35, 3), (10, 1000, 4), (-1, 250, 2), (1000, 10, 1)],
    ids=["as many as there is room for", "as many as there are threads", "unknown sizes are the largest", "one always"],
)
def test_reads_are_in_flight_within_the_room(gate: Gate, size: int, room: int, under_way: int) -> None:
    """The next is begun when the first has been taken."""
    entries = [item(Reference(Locator("a:b"), str(n), Version(size))) for n in range(40)]
    found: list[Item] = []
    flow = fetched(entries, 100 if size < 1000 else 10**6, 4, room, Skip())
    taking = threading.Thread(target=lambda: found.extend(flow), daemon=True)
    taking.start()
    wait_until(lambda: gate.begun == under_way)
    assert not found
    gate.open.set()
    taking.join()
    assert [one.key for one in found] == [str(n) for n in range(40)]
    assert gate.most == under_way


class Away:
    """A place that does not answer for a while."""

    def __init__(self, tries: int) -> None:
        self.left = tries

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        del version, max_bytes
        self.left -= 1
        if self.left > 0:
            raise TimeoutError(ref)
        return b"content"


@pytest.mark.parametrize(
    ("policy", "left"),
    [(Retry(3, first=0), 0), (Retry(2, first=0), 1), (Retry(within=0, first=0.1), 2), (Skip(), 2)],
)
def test_what_passes_by_itself_is_tried_again_here(monkeypatch: pytest.MonkeyPatch, policy: Policy, left: int) -> None:
    """As often as the stage would, which cannot; so what it gets then is not tried again."""
    away = Away(3)

    def opened(_: Locator) -> Fetcher:
        return away

    monkeypatch.setattr(Locator, "open", opened)
    (found,) = fetched([item(Reference(Locator("a:b"), "x"))], 100, 1, 100, policy)
    assert away.left == left
    if left:
        assert isinstance(found.data, ReadError)
        assert is_transient(found.data) is not isinstance(policy, Retry)
    else:
        assert found.data == b"content"


def test_where_nothing_passes_pictures_get_few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a stage: else each picture of a place that is gone would take all the time that its policy allows."""
    away = Away(1000)
    monkeypatch.setattr(Locator, "open", lambda _: away)
    entries = [item(Reference(Locator("a:b"), str(n))) for n in range(9)]
    found = fetched(entries, 100, 1, 100, Retry(within=0.2, first=0.01, longest=0.01))
    assert isinstance(next(found).data, ReadError)
    tried = away.left
    assert [isinstance(each.data, ReadError) for each in found] == [True] * 8
    assert tried - away.left <= 8 * 3


class Shelf(Source):
    """A source whose pictures are in a place."""

    locator = Locator("a:b")

    def __iter__(self) -> Iterator[Item]:
        yield item(Reference(Locator("a:b"), "x"))

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        raise NotImplementedError


@pytest.mark.parametrize(("policy", "left"), [("retry:3", 0), ("skip", 2)])
def test_a_job_with_confined_workers_tries_again_as_its_preprocessing_is_told_to(
    monkeypatch: pytest.MonkeyPatch, policy: str, left: int
) -> None:
    """The setting is about reading, whoever does it."""
    away = Away(3)
    monkeypatch.setattr(Locator, "open", lambda _: away)
    config = ServiceConfig(sandbox=True, workers=1, on_failure={"preprocess": policy})
    (found,) = readable(config, Shelf(), Shelf(), 100, 100)
    assert (away.left, found.data == b"content") == (left, not left)


def test_whoever_stops_early_leaves_no_thread(tmp_path: Path) -> None:
    """The generator is closed, as the engine does with a source that is not read to its end."""
    (tmp_path / "x").write_bytes(b"content")
    flow = fetched((item(reference(tmp_path, "x")) for _ in range(100)), 100, 2, 1000, Skip())
    assert next(flow).data == b"content"
    flow.close()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("penstock-fetch")])
