"""What is done after all leaves the dead letters: the file lists what is dead, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.dead_letters import clear_letters
from penstock.engine.journal import Entry, JobFolder, read_status
from penstock.errors import ReadError
from penstock.sinks import DeadLetters, read_dead_letters

from .whole_jobs import draw, draw_folder


def job(folder: Path, names: str, dead: str) -> JobFolder:
    """A job's books, kept by hand: one letter for each that is dead; what comes after them remains."""
    books = JobFolder.create_or_open(folder)
    books.write_snapshot(Entry(name) for name in names)
    with DeadLetters(folder / "dead-letters.jsonl") as letters:
        for name in dead:
            letters.write(name, "preprocess", ReadError("no"))
    books.dead([names.index(name) for name in dead])
    return books


def listed(folder: Path) -> list[str]:
    return [letter.key for letter in read_dead_letters(folder / "dead-letters.jsonl")]


def test_at_the_end_of_a_job_only_what_is_dead_is_listed(tmp_path: Path) -> None:
    """Also what an earlier run has done that died before it could say so."""
    with job(tmp_path / "job", "abc", "abc") as books:
        books.written([0])
        clear_letters(tmp_path / "job" / "dead-letters.jsonl", books, healed=())
        assert listed(tmp_path / "job") == ["b", "c"]


def test_while_something_remains_only_what_this_run_has_done_is_taken_out(tmp_path: Path) -> None:
    """What is to be tried again keeps its letter, which says how often it was tried."""
    with job(tmp_path / "job", "abcd", "abc") as books:
        books.undo([0, 1])
        books.written([0])
        clear_letters(tmp_path / "job" / "dead-letters.jsonl", books, healed={"a"})
        assert listed(tmp_path / "job") == ["b", "c"]


@pytest.mark.slow
def test_healed_letters_leave_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many lines as the status says are dead: after a retry that heals some, and after one that heals all."""
    from penstock.engine.cli import main

    pictures, folder = draw_folder(tmp_path / "pictures", 3), tmp_path / "job"
    bad = [pictures / f"bad-{number}.png" for number in range(3)]
    for path in bad:
        path.write_text("no picture")
    own = ["--workers", "1", "--embedder", "gist:32", "--progress", "none"]
    assert main(["embed", str(pictures), "--to", f"bulk:{tmp_path / 'rows'}", "--job", str(folder), *own]) == 0
    assert sorted(listed(folder)) == [str(path) for path in bad]
    for left in (2, 0):
        for path in bad[left:]:
            draw(path, np.random.default_rng(left))
        assert main(["retry", str(folder), "--progress", "none"]) == 0
        assert sorted(listed(folder)) == [str(path) for path in bad[:left]]
        capsys.readouterr()
        assert main(["status", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["counts"]["dead"] == left
    assert not (folder / "dead-letters.jsonl").exists()


@pytest.mark.slow
def test_a_run_that_ends_before_it_tells_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has healed a letter and dies before the file is written anew: the next look at the job does it."""
    from penstock.engine.cli import main

    pictures, folder = draw_folder(tmp_path / "pictures", 2), tmp_path / "job"
    (pictures / "bad.png").write_text("no picture")
    own = ["--workers", "1", "--embedder", "gist:32", "--progress", "none"]
    command = ["embed", str(pictures), "--to", f"bulk:{tmp_path / 'rows'}", "--job", str(folder), *own]
    assert main(command) == 0
    draw(pictures / "bad.png", np.random.default_rng(1))
    with monkeypatch.context() as patched:
        patched.setattr(JobCheckpoint, "__exit__", lambda books, *_: books._folder.close())
        assert main(["retry", str(folder), "--progress", "none"]) == 0
    assert read_status(folder).counts.dead == 0
    assert listed(folder) == [str(pictures / "bad.png")]
    assert main(command) == 0
    assert listed(folder) == []
