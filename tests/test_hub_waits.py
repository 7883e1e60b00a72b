"""The hub's thread waits for nothing but sockets and its own wake-ups: no file, no process, during whole jobs.

A disk that takes a second for an fsync, or a process that does not end, must hold up whoever asked, not all stages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .whole_jobs import draw_folder

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


def waits(tmp_path: Path, *command: str, status: int = 0) -> dict[str, str]:
    """What the hub's thread did that may wait, while a command ran."""
    told = tmp_path / "told.json"
    arguments = [sys.executable, "-m", "penstock.tests.hub_witness", str(told), *command]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    found: dict[str, str] = json.loads(told.read_text())
    return found


def embed(pictures: Path, tmp_path: Path, *more: str) -> list[str]:
    own = ["--to", str(tmp_path / "rows.db"), "--workers", "1", "--batch-size", "4", "--progress", "none"]
    return ["embed", str(pictures), *own, *more]


def explained(found: dict[str, str]) -> str:
    return "\n".join(f"{what}\n{where}" for what, where in found.items())


def test_a_job_with_dead_letters(pictures: Path, tmp_path: Path) -> None:
    """Its own store and no books."""
    found = waits(tmp_path, *embed(pictures, tmp_path, "--embedder", "gist:32"))
    assert not found, explained(found)
    assert len((tmp_path / "rows.dead-letters.jsonl").read_text().splitlines()) == BAD


def test_a_job_that_keeps_books(pictures: Path, tmp_path: Path) -> None:
    """Dead letters and the journal, from the source to the store; then all dead again."""
    job = tmp_path / "job"
    found = waits(tmp_path, *embed(pictures, tmp_path, "--job", str(job), "--embedder", "gist:32"))
    assert not found, explained(found)
    found = waits(tmp_path, "retry", str(job))
    assert not found, explained(found)


def test_a_job_whose_worker_is_killed(pictures: Path, tmp_path: Path) -> None:
    """Its end is heard, it is replaced, and its batches are done again."""
    model = "python:penstock.tests.hub_witness:flat_and_deadly"
    job = ["--job", str(tmp_path / "job"), "--embedder", model, "--slots", "2"]
    found = waits(tmp_path, *embed(pictures, tmp_path, *job))
    assert not found, explained(found)


def test_a_job_whose_store_refuses_rows(pictures: Path, tmp_path: Path) -> None:
    """The last stage fails, in threads of its own."""
    refused = ["--embedder", "python:penstock.tests.hub_witness:flat", "--field", "album:int64"]
    rows = tmp_path / "albums.jsonl"
    rows.write_text("".join(f'{{"path": "{path}", "album": "none"}}\n' for path in sorted(pictures.glob("0*.png"))[:5]))
    found = waits(tmp_path, *embed(pictures, tmp_path, *refused, "--metadata", str(rows)))
    assert not found, explained(found)
