"""Dead letters of a job that keeps books: which of them stand, and what ``penstock retry`` does again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.dead_letters import errors_of, latest_letters, undo_dead
from penstock.engine.jobs.common.listing import entry_at
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.journal import Entry, JobFolder, Kind, read_status
from penstock.engine.sources import Broken, FileSource, Filtered, Item
from penstock.errors import DecodeError, ReadError
from penstock.sinks import DeadLetters, row_key
from penstock.tests.whole_jobs import digest_of, draw, draw_folder

SECRET = "MARKER-77c1"
ENTRIES = [Entry("/p/a.png"), Entry(f"https://user:{SECRET}@host/b.png"), Entry("/p/c.png"), Entry("/p/d.png")]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Four dead entries; letters of three, one of which has an address with a password. The last letter is lost."""
    with JobFolder.create_or_open(tmp_path / "job") as folder, DeadLetters(tmp_path / "job/dead-letters.jsonl") as dead:
        folder.write_snapshot(ENTRIES)
        for entry, error in zip(ENTRIES, (ReadError("a"), ReadError("b"), DecodeError("c")), strict=False):
            dead.write(entry.name, "preprocess", error)
        folder.dead(range(4))
    return tmp_path / "job"


def undone(job: Path, keys: set[str] | None) -> list[str]:
    """Names of what is done again when the letters of these keys are."""
    with JobFolder.create_or_open(job) as folder:
        undo_dead(folder, keys)
        return [entry.name for span in folder.remaining() for entry in folder.snapshot.entries(span.start, span.stop)]


def test_all_that_is_dead_is_tried_again_also_without_a_letter(job: Path) -> None:
    """The power may fail between the two."""
    assert undone(job, None) == [entry.name for entry in ENTRIES]


def test_letters_find_their_entries_also_where_a_password_was_left_out(job: Path) -> None:
    """They name the entry without it, and count its attempts on."""
    letters = latest_letters(job / "dead-letters.jsonl")
    assert SECRET not in "".join(letters)
    chosen = {key for key, letter in letters.items() if letter.error == "ReadError"}
    assert undone(job, chosen) == [ENTRIES[0].name, ENTRIES[1].name]


def test_letters_of_what_is_done_by_now_do_not_count(job: Path) -> None:
    """Those of dead entries do, and a dead entry without a letter is not passed over."""
    dead = read_status(job, dead=True).dead
    assert errors_of(job / "dead-letters.jsonl", dead) == {"ReadError": 2, "DecodeError": 1, "unknown": 1}
    with JobFolder.create_or_open(job) as folder:
        folder.written([0, 2])
    dead = read_status(job, dead=True).dead
    assert dead == [ENTRIES[1].name, ENTRIES[3].name]
    assert errors_of(job / "dead-letters.jsonl", dead) == {"ReadError": 1, "unknown": 1}
    assert not read_status(job).dead


def test_the_status_names_errors_of_what_is_dead_now(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON."""
    with JobFolder.create_or_open(job) as folder:
        folder.written([1, 2, 3])
    assert main(["status", str(job)]) == 0
    assert "dead letters: ReadError 1\n" in capsys.readouterr().out
    assert main(["status", str(job), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["errors"] == {"ReadError": 1}


def test_nothing_to_try_again_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A retry is not a way to go on with the rest of a job by accident; it says what does."""
    pictures, job = draw_folder(tmp_path / "pictures", 3), tmp_path / "job"
    config = ServiceConfig(to=str(tmp_path / "rows.db"), job=job)
    with JobCheckpoint(config, make_plan(config), FileSource(str(pictures))):
        pass
    assert main(["retry", str(job), "--error", "ReadError"]) == 0
    said = capsys.readouterr().out
    assert "there are no dead letters" in said
    assert f"to go on with what is not done yet (3 items): penstock resume {job}" in said
    assert main(["retry", str(job)]) == 0
    assert "there are no dead letters" in capsys.readouterr().out
    assert not (tmp_path / "rows.db").exists()


@pytest.mark.parametrize(
    ("kind", "stages"),
    [
        ("pictures", "source, preprocess, embed, insert"),
        ("dedup", "source, preprocess, embed, insert"),
        ("videos", "source, download, extract, detect, embed, insert"),
        ("volumes", "source, prefetch, decode, patches, compute, pages, look, transform, write"),
    ],
)
def test_a_stage_that_a_job_does_not_have_is_refused_with_those_it_has(
    job: Path, kind: str, stages: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of job has stages of its own; near-duplicates are found by the stages of pictures."""
    with JobFolder.create_or_open(job) as folder:
        folder.accept({"source": "/p"}, {"kind": kind, "sources": ["/p"], "config": {}})
    assert main(["retry", str(job), "--stage", "nowhere"]) == 2
    assert f"'nowhere' is no stage of this job; there are {stages}\n" in capsys.readouterr().err


def test_what_was_broken_when_it_was_listed_is_looked_at_again(tmp_path: Path) -> None:
    """It may be a picture by now, or no picture; what is still not there says why, now."""
    source = FileSource(str(tmp_path))
    there = tmp_path / "x.png"
    entry = Entry(str(there), Kind.BROKEN, tag="cannot be read: Permission denied")
    missing = entry_at(source, 5, entry)
    assert isinstance(missing, Broken)
    assert (missing.ordinal, str(missing.error)) == (5, "cannot be read: No such file or directory")
    there.write_text("words")
    assert entry_at(source, 5, entry) == Item(str(there), str(there), ordinal=5)
    text = Entry(str(tmp_path / "x.txt"), Kind.BROKEN, tag="cannot be read: No such file or directory")
    Path(text.name).write_text("words")
    assert entry_at(source, 6, text) == Filtered(text.name, "not a picture", 6)


@pytest.mark.parametrize("name", ["folder", "no\0path"])
def test_what_cannot_be_mended_by_a_look_stays_broken(tmp_path: Path, name: str) -> None:
    """A folder that could not be listed has no entries in the listing: a look must not pass it by in silence."""
    (tmp_path / "folder").mkdir()
    item = entry_at(FileSource(str(tmp_path)), 0, Entry(f"{tmp_path}/{name}", Kind.BROKEN, tag="the old reason"))
    assert isinstance(item, Broken)
    assert "the old reason" in str(item.error)


@pytest.mark.slow
def test_a_file_that_was_missing_is_done_once_it_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A retry does it, and counts on what is still missing; the totals are those of the job."""
    noise = np.random.default_rng(0)
    names = [tmp_path / f"{number}.png" for number in range(4)]
    draw(names[0], noise)
    (tmp_path / "list").write_text("\n".join(map(str, names)))
    settings: dict[str, Any] = {"to": str(tmp_path / "rows.db"), "job": tmp_path / "job", "workers": 1}
    report = penstock.embed_images(f"@{tmp_path / 'list'}", progress="none", **settings)
    assert (report.accounting.written, report.accounting.dead) == (1, 3)
    (tmp_path / "list").unlink()
    draw(names[1], noise)
    assert main(["retry", str(tmp_path / "job"), "--error", "ReadError"]) == 0
    said = capsys.readouterr()
    assert "trying 3 items again" in said.err
    assert "2 dead letters in " in said.out
    assert "dead-letters.jsonl: ReadError 2" in said.out
    counts = read_status(tmp_path / "job").counts
    assert (counts.written, counts.dead, counts.remaining) == (2, 2, 0)
    letters = latest_letters(tmp_path / "job" / "dead-letters.jsonl")
    assert {key: letter.attempts for key, letter in letters.items()} == {str(name): 2 for name in names[2:]}
    assert set(digest_of(tmp_path, [row_key(str(name)) for name in names])) == {row_key(str(n)) for n in names[:2]}
