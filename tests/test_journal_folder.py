"""A job folder as its owner and its onlookers see it."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.journal import (
    Counts,
    Disk,
    Entry,
    JobFolder,
    JobLockedError,
    JournalDamagedError,
    JournalDiskError,
    JournalError,
    JournalVersionError,
    ListingDiff,
    Outcome,
    SourceOrderError,
    read_status,
)
from penstock.engine.journal import ledger as ledger_module
from penstock.errors import AccountingError, ConfigError
from penstock.tests.waiting import DEADLINE

FINGERPRINTS = {"source": "s1", "preprocess": "p1", "embedder": "e1", "sink": "k1"}


def entries(names: str) -> list[Entry]:
    return [Entry(name, size=1) for name in names]


def outcomes(job: JobFolder) -> str:
    return "".join("-wfd"[job.states[ordinal]] for ordinal in range(len(job.states)))


def files(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[JobFolder]:
    """A job with ten entries."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        job.write_snapshot(entries("abcdefghij"))
        yield job


def test_a_job_is_resumed_where_it_was(tmp_path: Path) -> None:
    """Outcomes, fingerprints, settings, events and the list come back; later outcomes win."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert not job.has_snapshot
        assert not job.finished
        job.accept(FINGERPRINTS, {"workers": 2})
        job.write_snapshot(entries("abcdefghij"))
        job.add_event("run started", workers=2)
        job.written([range(4), 5])
        job.dead([4, 6])
        job.filtered([7])
        job.written([6])
        job.undo([0])
        identity = job.manifest
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert outcomes(job) == "-wwwdwwf--"
        assert job.counts == Counts(10, 5, 1, 1, 3)
        assert list(job.remaining()) == [range(1), range(8, 10)]
        assert list(job.snapshot.entries(8)) == entries("ij")
        assert job.manifest == identity
        assert job.manifest.settings == {"workers": 2}
        assert [event["event"] for event in job.events] == ["listed", "run started"]
        assert not job.finished
        job.written([0, 8, 9])
        assert job.finished


def test_an_empty_source_is_finished_at_once(tmp_path: Path) -> None:
    """No entries is a list too."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        job.write_snapshot([])
        assert job.finished
        assert list(job.remaining()) == []


def test_fingerprints_that_differ_are_named(tmp_path: Path) -> None:
    """A new job has nothing to differ from; later each difference has both sides, and accepting it is noted."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert job.check(FINGERPRINTS) == []
        job.accept(FINGERPRINTS)
        assert job.check(FINGERPRINTS) == []
        new = {"source": "s1", "preprocess": "p1", "embedder": "e2", "extra": "x"}
        found = [(one.name, one.there, one.here) for one in job.check(new)]
        assert found == [("embedder", "e1", "e2"), ("extra", None, "x"), ("sink", "k1", None)]
        job.accept(new)
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert job.fingerprints == new
        assert job.events[-1]["event"] == "accepted"
        assert job.events[-1]["changes"][0] == {"name": "embedder", "there": "e1", "here": "e2"}


def test_a_renewed_list_keeps_outcomes_by_name(listed: JobFolder) -> None:
    """The same keep their outcome, changed and new ones are undone, gone ones go; one file of each kind is left."""
    listed.written([0, 1, 2])
    listed.dead([3])
    fresh = entries("acdefghijz")
    fresh[1] = fresh[1]._replace(size=2)
    assert listed.renew_snapshot(fresh) == ListingDiff(same=8, new=1, changed=1, gone=1)
    assert outcomes(listed) == "w-d-------"
    assert listed.events[-1]["changed"] == 1
    path = Path(listed.path)
    listed.close()
    assert files(path) == {"job.json", "lock", "snapshot-2", "journal-3"}
    with JobFolder.create_or_open(path) as job:
        assert outcomes(job) == "w-d-------"
        assert list(job.snapshot) == fresh


def test_a_list_that_cannot_be_compared_changes_nothing(listed: JobFolder) -> None:
    """The refusal leaves the old list, its outcomes and no file."""
    listed.written([0])
    with pytest.raises(SourceOrderError):
        listed.renew_snapshot(entries("bajihgfedc"))
    assert outcomes(listed) == "w---------"
    assert list(listed.snapshot) == entries("abcdefghij")
    assert files(Path(listed.path)) == {"job.json", "lock", "snapshot-1", "journal-2"}


def test_the_list_is_written_once(listed: JobFolder) -> None:
    """A second list is not mistaken for the first; without one there are no ordinals."""
    with pytest.raises(JournalError, match="renew_snapshot"):
        listed.write_snapshot(entries("a"))


def test_without_a_list_nothing_can_be_recorded(tmp_path: Path) -> None:
    """There are no ordinals yet, and no list to read."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        with pytest.raises(AccountingError, match="0 entries"):
            job.written([0])
        with pytest.raises(JournalError, match="not listed yet"):
            list(job.snapshot)


def test_a_closed_job_says_so(listed: JobFolder) -> None:
    """Recording after the end is an error of the program, not a lost record; closing twice is fine."""
    listed.close()
    listed.close()
    calls: list[Callable[[], None]] = [lambda: listed.written([1]), lambda: listed.add_event("late"), listed.sync]
    for call in [*calls, listed.compact]:
        with pytest.raises(JournalError, match="closed"):
            call()


def test_files_are_private(listed: JobFolder) -> None:
    """Names of pictures are nobody else's business: 0600, and 0700 for the folder."""
    for path in (Path(listed.path), *Path(listed.path).iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_compaction_changes_nothing_but_the_size(listed: JobFolder) -> None:
    """Outcomes and events are the same after it, and after it was opened again; the file is smaller."""
    listed.add_event("run started")
    for _ in range(50):
        listed.written([range(0, 10, 1)])
        listed.undo([3])
    before, path = outcomes(listed), Path(listed.path)
    size = (path / "journal-2").stat().st_size
    listed.compact()
    assert (path / "journal-3").stat().st_size < size / 4
    listed.dead([3])
    listed.close()
    with JobFolder.create_or_open(path) as job:
        assert outcomes(job) == before.replace("-", "d") == "wwwdwwwwww"
        assert [event["event"] for event in job.events] == ["listed", "run started"]


def test_a_long_journal_is_shortened_when_it_is_opened(listed: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it is much larger than what it says."""
    monkeypatch.setattr(ledger_module, "_COMPACT_BYTES", 1000)
    for _ in range(50):
        listed.written([range(5)])
    path = Path(listed.path)
    listed.close()
    JobFolder.create_or_open(path).close()
    assert (path / "journal-3").stat().st_size < 1000
    JobFolder.create_or_open(path).close()
    assert "journal-3" in files(path)


def test_threads_may_record_beside_a_sync(tmp_path: Path) -> None:
    """Records of several threads, syncs and switches: none is lost."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        job.write_snapshot(Entry(str(number)) for number in range(400))
        barrier = threading.Barrier(5)

        def record(first: int) -> None:
            barrier.wait()
            for ordinal in range(first, 400, 4):
                job.written([ordinal])

        def maintain() -> None:
            barrier.wait()
            for _ in range(5):
                job.sync()
                job.compact()

        threads = [threading.Thread(target=record, args=(first,)) for first in range(4)]
        threads.append(threading.Thread(target=maintain))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert job.finished
    with JobFolder.create_or_open(tmp_path / "job") as job:
        assert job.finished


def test_a_second_owner_is_refused(listed: JobFolder) -> None:
    """The message says which process has it, and what to do."""
    with pytest.raises(JobLockedError, match=f"process {os.getpid()} on .*wait for it or stop it"):
        JobFolder.create_or_open(listed.path)
    listed.written([0])


def test_a_folder_of_something_else_is_not_taken(tmp_path: Path) -> None:
    """A slip in --job must not put files among photographs."""
    (tmp_path / "IMG_1.jpg").write_bytes(b"x")
    with pytest.raises(JournalDamagedError, match=r"IMG_1\.jpg"):
        JobFolder.create_or_open(tmp_path)
    assert files(tmp_path) == {"IMG_1.jpg"}


def test_other_files_of_the_job_stay(listed: JobFolder) -> None:
    """Dead letters and reports may lie in the folder: sweeping knows its own names only."""
    path = Path(listed.path)
    listed.close()
    others = {"dead_letters.jsonl", "report.json", "journal-x", "snapshot-01"}
    mine = {"journal-1", "snapshot-7", "journal-9.tmp", "job.json.tmp"}
    for name in others | mine:
        (path / name).write_bytes(b"x")
    JobFolder.create_or_open(path).close()
    assert files(path) == others | {"job.json", "lock", "snapshot-1", "journal-2"}


def _replace(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("job.json", b'"format": 2', b'"format": 3'),
        ("journal-2", b"penstock journal 2\n", b"penstock journal 3\n"),
        ("snapshot-1", b"penstock snapshot 2\n", b"penstock snapshot 12\n"),
    ],
)
def test_a_newer_format_is_refused(listed: JobFolder, name: str, old: bytes, new: bytes) -> None:
    """With its number and what to do; the files stay as they are."""
    path = Path(listed.path)
    listed.close()
    _replace(path / name, old, new)
    before = files(path)
    for read in (JobFolder.create_or_open, read_status):
        with pytest.raises(JournalVersionError, match=rf"{name}: has format (3|12), .*use the version"):
            read(path)
    assert files(path) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("job.json", b"{", b""),
        ("job.json", b'"created"', b'"krated"'),
        ("journal-2", b"penstock", b"pinstock"),
        ("journal-2", b'"snapshot"', b'"snapshod"'),
    ],
)
def test_damage_is_refused(listed: JobFolder, name: str, old: bytes, new: bytes) -> None:
    """It says which file and the way out."""
    path = Path(listed.path)
    listed.close()
    _replace(path / name, old, new)
    with pytest.raises(JournalDamagedError, match=rf"{name}: .*(restore|start a new job)"):
        JobFolder.create_or_open(path)


def test_a_missing_journal_is_not_a_new_job(listed: JobFolder) -> None:
    """A list without a journal: all would be done again; so it is refused."""
    path = Path(listed.path)
    listed.close()
    (path / "journal-2").unlink()
    with pytest.raises(JournalDamagedError, match="no journal"):
        JobFolder.create_or_open(path)


def test_a_journal_of_another_job_is_refused(listed: JobFolder, tmp_path: Path) -> None:
    """Files of two jobs, mixed by a copy, are noticed."""
    path = Path(listed.path)
    listed.close()
    with JobFolder.create_or_open(tmp_path / "other") as other:
        other.write_snapshot(entries("abcdefghij"))
    (tmp_path / "other" / "journal-2").rename(path / "journal-2")
    with pytest.raises(JournalDamagedError, match="belongs to job"):
        JobFolder.create_or_open(path)


def test_every_flipped_byte_that_was_synced_is_noticed(listed: JobFolder) -> None:
    """Whatever had reached the medium before the last record is either as it was, or refused."""
    listed.written([1])
    listed.add_event("run started")
    listed.sync()
    path = Path(listed.path) / "journal-2"
    durable = path.stat().st_size
    listed.dead([2])
    listed.close()
    whole = path.read_bytes()
    for place in range(durable):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((JournalDamagedError, JournalVersionError)):
            read_status(path.parent)
    path.write_bytes(whole)
    assert read_status(path.parent).counts == Counts(10, 1, 0, 1, 8)


def test_a_torn_tail_is_cut_off_at_any_byte(listed: JobFolder, caplog: pytest.LogCaptureFixture) -> None:
    """The records before it are there, a warning says how much was left out, and the next append is whole."""
    path = Path(listed.path) / "journal-2"
    ends = []
    for ordinal in range(3):
        listed.written([ordinal])
        ends.append(path.stat().st_size)
    listed.close()
    whole = path.read_bytes()
    for cut in range(ends[0], ends[2]):
        path.write_bytes(whole[:cut])
        caplog.clear()
        assert read_status(path.parent).counts.written == 1 + (cut >= ends[1])
        with caplog.at_level(logging.WARNING, "penstock.journal"), JobFolder.create_or_open(path.parent) as job:
            torn = cut - (ends[1] if cut >= ends[1] else ends[0])
            assert ([f"{torn} bytes" in record.getMessage() for record in caplog.records]) == [True] * bool(torn)
            assert outcomes(job) == ("ww--------" if cut >= ends[1] else "w---------")
            job.dead([9])
        with JobFolder.create_or_open(path.parent) as job:
            assert job.states[9] is Outcome.DEAD
            assert job.counts.dead == 1


def test_records_behind_a_hole_that_were_never_promised_are_left_out(listed: JobFolder) -> None:
    """A crash of the machine may lose a page and keep the next: that is no damage, for nothing there was synced."""
    path = Path(listed.path) / "journal-2"
    listed.written([0])
    start = path.stat().st_size
    listed.written([1])
    listed.written([2])
    whole = path.read_bytes()
    listed.close()
    path.write_bytes(whole[:start] + bytes(10) + whole[start + 10 :])
    with JobFolder.create_or_open(path.parent) as job:
        assert outcomes(job) == "w---------"


def test_anybody_may_ask_while_the_owner_writes(listed: JobFolder) -> None:
    """The status needs no lock, sees what was recorded, and says who runs the job."""
    listed.accept(FINGERPRINTS, {"to": "x.db"})
    listed.written([range(7)])
    status = read_status(listed.path)
    assert status.counts == listed.counts
    assert status.owner is not None
    assert status.owner.pid == os.getpid()
    assert (status.listed, status.finished) == (True, False)
    assert status.settings == {"to": "x.db"}
    assert status.job == listed.manifest.job
    with (Path(listed.path) / "journal-2").open("ab") as file:
        file.write(b"half a block")
    assert read_status(listed.path).counts == listed.counts
    listed.close()
    assert read_status(listed.path).owner is None


def test_a_look_that_misses_a_journal_is_repeated(listed: JobFolder) -> None:
    """Names that come and go while they are listed may both be missed: that is no empty job."""

    class Missing(Disk):
        looks = 0

        def names(self, folder: str) -> list[str]:
            self.looks += 1
            return [name for name in super().names(folder) if self.looks > 3 or not name.startswith("journal")]

    assert read_status(listed.path, Missing()).counts.total == 10


def test_a_block_that_is_seen_half_is_no_damage(listed: JobFolder) -> None:
    """Its owner writes it, syncs, and goes on to promise it, all while somebody reads."""

    class Early(Disk):
        def size(self, fd: int) -> int:
            return min(super().size(fd), early)

    path = Path(listed.path) / "journal-2"
    listed.written([0])
    early = path.stat().st_size + 20
    listed.written([1])
    listed.sync()
    listed.written([2])
    assert read_status(listed.path, Early()).counts.written == 1
    assert read_status(listed.path).counts.written == 3


def test_the_status_of_a_job_that_is_not_listed(tmp_path: Path) -> None:
    """Nothing of nothing, and not finished."""
    JobFolder.create_or_open(tmp_path / "job").close()
    status = read_status(tmp_path / "job")
    assert status.counts == Counts(0, 0, 0, 0, 0)
    assert not status.finished


def test_the_status_of_nothing_says_where(tmp_path: Path) -> None:
    """No folder is made by asking."""
    with pytest.raises(JournalDiskError, match=r"job\.json: cannot be read"):
        read_status(tmp_path / "job")
    assert files(tmp_path) == set()


def _as_format_1(path: Path) -> None:
    """What an older penstock has left. That format is this one without acknowledgements of single sinks."""
    _replace(path / "job.json", b'"format": 2', b'"format": 1')
    _replace(path / "journal-2", b"penstock journal 2\n", b"penstock journal 1\n")
    _replace(path / "snapshot-1", b"penstock snapshot 2\n", b"penstock snapshot 1\n")


def test_a_job_of_format_1_goes_on(listed: JobFolder) -> None:
    """It stays one that an older penstock can read until a single sink acknowledges rows; finished ones, too."""
    path, total = Path(listed.path), len(listed.snapshot)
    listed.written([0])
    listed.close()
    _as_format_1(path)
    assert read_status(path).counts.written == 1
    with JobFolder.create_or_open(path) as job:
        job.written([1])
        assert (path / "journal-2").read_bytes().startswith(b"penstock journal 1\n")
        job.acknowledged(1, [2])
        assert (path / "journal-3").read_bytes().startswith(b"penstock journal 2\n")
    with JobFolder.create_or_open(path) as job:
        assert (job.counts.written, job.states.acknowledged_by(2)) == (2, 2)
        job.written([range(total)])
        assert job.finished


def test_what_single_sinks_have_acknowledged_is_kept(listed: JobFolder) -> None:
    """Of what is not done: a later outcome is the outcome, however it is compacted."""
    listed.acknowledged(0, [0, 1, 2])
    listed.acknowledged(1, [1, 2])
    listed.written([2])
    listed.acknowledged(0, [2])
    for _ in range(2):
        states = listed.states
        assert [states.acknowledged_by(ordinal) for ordinal in range(4)] == [1, 3, 0, 0]
        assert [*states.acknowledged()] == [range(2)]
        assert [*states.acknowledged(1)] == [range(1, 2)]
        assert (listed.counts.written, listed.counts.remaining) == (1, listed.counts.total - 1)
        assert [ordinal for ordinal, _ in listed.entries(Outcome.UNDONE)][:2] == [0, 1]
        listed.compact()
    path = listed.path
    listed.close()
    with JobFolder.create_or_open(path) as again:
        assert [again.states.acknowledged_by(ordinal) for ordinal in range(4)] == [1, 3, 0, 0]
        again.undo([*again.states.acknowledged()])
        assert [*again.states.acknowledged()] == []


def test_an_event_is_json_and_has_a_bound(listed: JobFolder) -> None:
    """What is no JSON or too long is refused before it is written."""
    fields: dict[str, Any] = {"text": "x" * 2**20}
    with pytest.raises(ConfigError, match="at most"):
        listed.add_event("large", **fields)
    with pytest.raises(TypeError):
        listed.add_event("object", what=object())
    assert [event["event"] for event in listed.events] == ["listed"]


def test_the_manifest_is_for_people(listed: JobFolder) -> None:
    """Plain JSON that says the format, when, and with which settings."""
    listed.accept(FINGERPRINTS, {"embedder": "gist"})
    manifest = json.loads((Path(listed.path) / "job.json").read_text())
    assert manifest["format"] == 2
    assert manifest["fingerprints"] == FINGERPRINTS
    assert manifest["settings"] == {"embedder": "gist"}
