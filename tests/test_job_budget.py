"""How many pictures of a whole job may fail: rates are judged at the end, over all runs; what ends a job is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.engine.cli import main
from penstock.engine.journal import read_status

from .whole_jobs import draw_folder

pytestmark = pytest.mark.slow


def embed(pictures: Path, tmp_path: Path, *more: str) -> list[str]:
    own = ["--to", str(tmp_path / "rows.db"), "--workers", "1", "--embedder", "gist:32", "--progress", "none"]
    return ["embed", str(pictures), *own, *more]


def spoil(folder: Path, count: int) -> None:
    """Files that are called pictures and are none."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"bad-{number:02}.jpg").write_text("no picture")


def test_a_rate_counts_whatever_the_number_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six of six dead are more than 5 %: the job fails, and says where, how many, and the first with their reasons."""
    spoil(tmp_path / "pictures", 6)
    assert main(embed(tmp_path / "pictures", tmp_path, "--max-failures", "5%")) == 1
    said = capsys.readouterr().err
    assert "stage 'preprocess': 6 of 6 items failed, more than max_failures=5% allows; the first: " in said
    assert "bad-00.jpg (UnreadableError: " in said
    assert "rows.dead-letters.jsonl" in said
    assert "bad-05.jpg (" not in said


def test_a_rate_counts_over_all_runs_of_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resume does not start a new count: six died before, and the two that are done now do not make up for it."""
    pictures, job = tmp_path / "pictures", tmp_path / "job"
    spoil(pictures, 6)
    assert main(embed(pictures, tmp_path, "--job", str(job), "--max-failures", "90%")) == 1
    draw_folder(tmp_path / "more", 2)
    for path in sorted((tmp_path / "more").iterdir()):
        path.rename(pictures / path.name)
    capsys.readouterr()
    assert main(embed(pictures, tmp_path, "--job", str(job), "--max-failures", "50%", "--update")) == 1
    assert "stage 'preprocess': 6 of 8 items failed, more than max_failures=50% allows" in capsys.readouterr().err
    assert main(["resume", str(job), "--progress", "none"]) == 1  # nothing remains, and it is as it was
    assert "stage 'preprocess': 6 of 8 items failed" in capsys.readouterr().err
    assert main(["resume", str(job), "--progress", "none", "--max-failures", "75%"]) == 0
    counts = read_status(job).counts
    assert (counts.written, counts.dead) == (2, 6)
