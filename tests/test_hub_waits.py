"""The hub's thread waits for nothing but sockets and its own wake-ups: no file, no process, during whole jobs.

A disk that takes a second for an fsync, or a process that does not end, must hold up whoever asked, not all stages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from penstock.engine.journal import read_status
from penstock.sinks import read_dead_letters
from penstock.tests.whole_jobs import draw_folder

pytestmark = pytest.mark.slow

PICTURES = 24
BAD = 6


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of small pictures; some are none, and one file is of another kind."""
    folder = draw_folder(tmp_path / "pictures", PICTURES)
    for number in range(BAD):
        (folder / f"bad-{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(tmp_path: Path, *command: str) -> str:
    """Run a command of which the hub's thread waits for nothing; what it says on standard error."""
    waits = tmp_path / "waits.json"
    arguments = [sys.executable, "-m", "penstock.tests.hub_witness", str(waits), *command]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, str] = json.loads(waits.read_text())
    assert not found, "\n".join(f"{what}\n{where}" for what, where in found.items())
    return ended.stderr


def embed(pictures: Path, tmp_path: Path, *more: str) -> list[str]:
    own = ["--to", str(tmp_path / "rows.db"), "--workers", "1", "--batch-size", "4", "--progress", "none"]
    return ["embed", str(pictures), *own, *more]


def stages(folder: Path) -> Counter[str]:
    """In how many pictures each stage has failed."""
    return Counter(letter.stage for letter in read_dead_letters(folder / "rows.dead-letters.jsonl"))


_RUDE = """
import os
from penstock.engine import PipelineBuilder, green
from penstock.tests import hub_witness

@green
def rude(x):
    open(os.devnull).close()
    return x

hub_witness.watch()
list(PipelineBuilder().add_source([1]).pipe(rude).add_sink().build(num_threads=1))
print(*hub_witness.waits)
"""


def test_a_wait_of_the_hub_would_be_seen() -> None:
    """Opening a file is one."""
    done = subprocess.run([sys.executable, "-c", _RUDE], capture_output=True, text=True, check=True)
    assert "open" in done.stdout.split()


def test_a_job_with_dead_letters(pictures: Path, tmp_path: Path) -> None:
    """Its own store and no books."""
    run(tmp_path, *embed(pictures, tmp_path, "--embedder", "gist:32"))
    assert stages(tmp_path) == {"preprocess": BAD}


def test_a_job_that_keeps_books(pictures: Path, tmp_path: Path) -> None:
    """Dead letters and the journal, from the source to the store; then all dead again."""
    job = tmp_path / "job"
    run(tmp_path, *embed(pictures, tmp_path, "--job", str(job), "--embedder", "gist:32"))
    run(tmp_path, "retry", str(job))
    assert read_status(job).counts.dead == BAD


def test_a_job_whose_worker_is_killed(pictures: Path, tmp_path: Path) -> None:
    """Its end is heard, it is replaced, and its batches are done again."""
    model = "python:penstock.tests.hub_witness:flat_and_deadly"
    job = ["--job", str(tmp_path / "job"), "--embedder", model, "--slots", "2"]
    said = run(tmp_path, *embed(pictures, tmp_path, *job))
    assert "was killed by signal 9 (SIGKILL)" in said
    assert read_status(tmp_path / "job").counts.written == PICTURES


def test_a_job_whose_store_refuses_rows(pictures: Path, tmp_path: Path) -> None:
    """The last stage fails, in threads of its own."""
    refused = ["--embedder", "python:penstock.tests.hub_witness:flat", "--field", "album:int64"]
    rows = tmp_path / "albums.jsonl"
    rows.write_text("".join(f'{{"path": "{path}", "album": "none"}}\n' for path in sorted(pictures.glob("0*.png"))[:5]))
    run(tmp_path, *embed(pictures, tmp_path, *refused, "--metadata", str(rows)))
    assert stages(tmp_path) == {"preprocess": BAD, "insert": 5}
