"""Several stores at once: what a tee answers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest

from penstock import ConfigError, Report
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.observe.progress import summary
from penstock.errors import RowRefusedError, SinkUnavailableError
from penstock.sinks import (
    NullSink,
    RowBatch,
    SinkOptions,
    TeeSink,
    WriteResult,
    make_sink,
)
from penstock.sinks.base import Found, IndexState, Sink, SinkMemory
from penstock.testing.sinks import DIMENSION, make_rows
from penstock.tests.waiting import DEADLINE, wait_until


class Named(NullSink):
    """One that is told from others by its name, and refuses and fails as it is told."""

    def __init__(self, name: str, refuses: tuple[int, ...] = (), fails: bool = False) -> None:
        super().__init__()
        self.name, self.refuses, self.fails = name, refuses, fails

    @property
    def uri(self) -> str:
        return self.name

    @property
    def fingerprint(self) -> str:
        return self.name

    def write(self, rows: RowBatch) -> WriteResult:
        if self.fails:
            raise SinkUnavailableError(f"{self.name}: gone")
        super().write(rows)
        return WriteResult(
            len(rows) - len(self.refuses), [(index, RowRefusedError("too long")) for index in self.refuses]
        )


def test_a_row_is_written_when_all_have_taken_it() -> None:
    """What one refuses is refused, by its name, and once."""
    with TeeSink([Named("a", (1, 3)), Named("b", (3, 4))]) as tee:
        result = tee.write(make_rows(6))
    assert result.written == 3
    assert [(index, str(error)) for index, error in result.refused] == [
        (1, "a: too long"),
        (3, "a: too long"),
        (4, "b: too long"),
    ]


@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_fails_the_others_finish_their_write(failing: int) -> None:
    """Then it is raised."""
    members = [Named("a"), Named("b")]
    members[failing].fails = True
    with TeeSink(members) as tee, pytest.raises(SinkUnavailableError, match="gone"):
        tee.write(make_rows(6))
    assert members[1 - failing].count() == 6


class Figured(NullSink):
    """One that keeps rows, and whose answers are all made of one number; 7 has what the others have not."""

    keeps_rows: ClassVar[bool] = True

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.special, self.closed = number, number == 7, False

    @property
    def fingerprint(self) -> str:
        return str(self.number)

    @property
    def note(self) -> str:
        return f"note {self.number}"

    @property
    def has_secret(self) -> bool:
        return self.special

    @property
    def needs_finish(self) -> bool:
        return self.special

    @property
    def local_path(self) -> Path | None:
        return Path("seven") if self.special else None

    @property
    def next_step(self) -> str:
        return "" if self.special else f"step {self.number}"

    def rows_per_write(self, asked: int) -> int:
        return asked * self.number

    def memory(self, dimension: int, rows: int) -> SinkMemory | None:
        return SinkMemory(f"store {self.number}", self.number, own_process=self.special)

    def reach(self) -> None:
        if self.special:
            raise SinkUnavailableError("gone")

    def look(self) -> Found | None:
        return Found(self.number, self.note)

    def count(self) -> int:
        return self.number

    def stats(self) -> dict[str, float]:
        return {"calls": self.number, "waiting": self.number}

    def wait_index(self, seconds: float, on_progress: object = None, stop: object = None) -> IndexState:
        return IndexState(self.number, self.number, float(self.number))

    def close(self) -> None:
        self.closed = True
        if self.special:
            raise OSError("disk full")


def test_it_answers_for_all_its_stores() -> None:
    """With the least, the most or the sum of what they say, or as the first does."""
    members = [Figured(5), Figured(7), Figured(3)]
    tee = TeeSink(members)
    assert (tee.has_secret, tee.needs_finish, tee.local_path) == (True, True, Path("seven"))
    assert (tee.note, tee.next_step) == ("note 5", "step 5; step 3")
    assert tee.rows_per_write(10) == 70
    assert tee.memory(8, 100) == SinkMemory("store 5 and store 7 and store 3", 15, own_process=True)
    assert (tee.look(), tee.count()) == (Found(3, "note 5"), 3)
    assert {name: value for name, value in tee.stats().items() if not name.startswith("behind")} == {
        "calls": 5,
        "calls 2": 7,
        "calls 3": 3,
        "waiting": 7,
        "waiting 2": 7,
        "waiting 3": 3,
    }
    assert tee.wait_index(1.0).seconds == 7
    with pytest.raises(SinkUnavailableError):
        tee.reach()
    with pytest.raises(OSError, match="disk full"):
        tee.close()
    assert all(member.closed for member in members)


class Single(Named):
    """One that takes one thread at a time, and counts how many come."""

    def __init__(self) -> None:
        super().__init__("single")
        self.most, self._inside, self._both = 0, 0, threading.Barrier(2)

    @property
    def threads(self) -> int:
        return 1

    def write(self, rows: RowBatch) -> WriteResult:
        self._inside += 1
        self.most = max(self.most, self._inside)
        with suppress(threading.BrokenBarrierError):
            self._both.wait(0.2)  # a second one, if it may come, comes meanwhile
        self._inside -= 1
        return super().write(rows)


def test_no_store_is_given_more_threads_than_it_takes() -> None:
    """Another one of them may take more, and a job writes with as many."""
    single = Single()
    with TeeSink([Named("a"), single]) as tee, ThreadPoolExecutor(2) as pool:
        assert tee.threads == 4
        assert [result.written for result in pool.map(tee.write, [make_rows(2)] * 2)] == [2, 2]
    assert single.most == 1


def test_a_store_is_named_once(tmp_path: Path) -> None:
    """Its rows would be written twice, and counted."""
    uri = f"bulk:{tmp_path}"
    with pytest.raises(ConfigError, match=r"^to: bulk:\S+ collection images is named twice"):
        make_sink([uri, f"{uri}/"], SinkOptions(dimension=DIMENSION))


def test_several_are_said_in_each_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list or a tuple in Python, a list in a file, the option again on the command line; one of a list is one."""
    yaml = tmp_path / "job.yaml"
    yaml.write_text("to: [bulk:a, 'null:']\n")
    several = ("bulk:a", "null:")
    assert ServiceConfig(to=[Path("bulk:a"), "null:"]).to == ServiceConfig.from_yaml(yaml).to == several
    assert ServiceConfig(to=["photos.db"]).to == "photos.db"
    assert ServiceConfig(to=several).shown_to == "bulk:a, null:"
    with pytest.raises(ConfigError, match=r"^to: \['a', 4\] is not allowed: must be an address"):
        ServiceConfig(to=["a", 4])
    assert main(["embed", str(tmp_path), "--to", "null:", "--to", "bulk:"]) == 2
    assert "penstock: --to: 'bulk:' names no folder" in capsys.readouterr().err


def test_only_who_lacks_a_row_is_asked_for_it() -> None:
    """And who has acknowledged what is told as it happens, also where another one fails."""
    acknowledged: list[tuple[int, list[int]]] = []
    members = [Named("a"), Named("b", (1,)), Named("c", fails=True)]
    with TeeSink(members[:2]) as tee:
        result = tee.write_missing(make_rows(4), [0b01, 0b01, 0b10, 0b11], lambda *said: acknowledged.append(said))
    assert sorted(acknowledged) == [(0, [2]), (1, [0])]
    assert (result.written, [index for index, _ in result.refused]) == (3, [1])
    acknowledged.clear()
    with TeeSink([members[0], members[2]]) as tee, pytest.raises(SinkUnavailableError):
        tee.write_missing(make_rows(4), [0] * 4, lambda *said: acknowledged.append(said))
    assert acknowledged == [(0, [0, 1, 2, 3])]


class Held(Named):
    """One that is down until it is let go on."""

    def __init__(self) -> None:
        super().__init__("held")
        self.up = threading.Event()

    def write(self, rows: RowBatch) -> WriteResult:
        assert self.up.wait(DEADLINE)
        return super().write(rows)

    def stats(self) -> dict[str, float]:
        return {} if self.up.is_set() else {"waiting": 5.0, "retry_for": 120.0}


def test_one_that_is_down_holds_the_others_back_only_when_its_backlog_is_full() -> None:
    """They have all that may wait for it, beside the writes that its threads have; it gets the same when it is up."""
    held = Held()
    with TeeSink([Named("a"), held], backlog=25) as tee:
        assert [tee.writes_at_once(10), tee.writes_at_once(25), tee.threads] == [4 + 3, 4 + 1, 4]
        with ThreadPoolExecutor(7) as pool:
            pending = [pool.submit(tee.write, make_rows(10, first=10 * number)) for number in range(7)]
            try:
                wait_until(lambda: tee.stats()["behind"] == 70)
                assert tee.members[0].count() == 70
                assert not any(write.done() for write in pending)
            finally:
                held.up.set()
            assert [write.result(DEADLINE).written for write in pending] == [10] * 7
        assert held.count() == 70
        assert tee.stats() == {"behind": 0, "behind 2": 0}


@pytest.mark.parametrize("place", [0, 1])
def test_progress_shows_the_store_that_is_waited_for(place: int) -> None:
    """Whichever of them it is, with its own patience and what it lacks."""
    members: list[Sink] = [Named("a")]
    members.insert(place, Held())
    with TeeSink(members) as tee:
        report = Report(extra={"store": dict(tee.stats())})
        assert summary(report, None).endswith("waiting for the store, 5 of 120 s")
        report.extra["store"]["behind"] = 4096.0
        assert summary(report, None).endswith("waiting for the store, 5 of 120 s, 4,096 rows behind the others")
