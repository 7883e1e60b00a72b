"""`penstock dedup` as a whole: pictures in, the list of duplicates out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

import penstock
from penstock.engine.cli import main

pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.slow

PHOTOS = Path(penstock.__file__).parent / "examples" / "photos"
OWN = ("--workers", "1", "--progress", "none")


def copies(folder: Path) -> Path:
    """Three photographs, a copy of a file, a smaller one in another format, and one that is a little cut."""
    folder.mkdir()
    for name in ("cat-1", "retina-1", "coffee-cup-2"):
        shutil.copy(PHOTOS / f"{name}.jpg", folder)
    shutil.copy(PHOTOS / "cat-1.jpg", folder / "same.jpg")
    with Image.open(PHOTOS / "retina-1.jpg") as image:
        image.resize((image.width // 2, image.height // 2)).save(folder / "half.png")
    with Image.open(PHOTOS / "coffee-cup-2.jpg") as image:
        width, height = image.size
        image.crop((width // 40, height // 40, width - width // 40, height - height // 40)).save(folder / "cut.png")
    return folder


def listed(path: Path) -> dict[str, tuple[str, str]]:
    """Who goes, with its keeper and the rule, by the names of files."""
    rows = pq.read_table(path).to_pylist()
    return {Path(row["key"]).name: (Path(row["duplicate_of"]).name, row["rule"]) for row in rows}


def test_copies_are_listed_with_the_best_of_their_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy of a file is exact, a smaller one and a cut one are near; what cannot be read is a dead letter."""
    photos, to = copies(tmp_path / "photos"), tmp_path / "duplicates.parquet"
    (photos / "broken.jpg").write_bytes((photos / "cat-1.jpg").read_bytes()[:1000])
    assert main(["dedup", str(photos), "--to", str(to), "--job", str(tmp_path / "job"), *OWN]) == 0
    assert listed(to) == {
        "same.jpg": ("cat-1.jpg", "exact"),
        "half.png": ("retina-1.jpg", "default"),
        "cut.png": ("coffee-cup-2.jpg", "default"),
    }
    assert "6 pictures: 3 stay, 3 duplicates (1 exact)" in capsys.readouterr().out
    assert "broken.jpg" in (tmp_path / "job" / "dead-letters.jsonl").read_text()


def test_a_job_that_is_run_again_makes_no_signature_twice(tmp_path: Path) -> None:
    """Another rule judges the same signatures; `resume` goes on as the job was last run; new pictures join it."""
    photos, to, job = copies(tmp_path / "photos"), tmp_path / "duplicates.parquet", tmp_path / "job"
    command = ["dedup", str(photos), "--to", str(to), "--job", str(job), *OWN]
    assert main(command) == 0
    parts = {path: path.stat().st_mtime_ns for path in (job / "signatures").glob("*.signatures")}
    default = to.read_bytes()
    assert main([*command, "--rule", "strict"]) == 0
    assert "cut.png" not in listed(to)
    assert main([*command]) == 0
    assert to.read_bytes() == default
    assert {path: path.stat().st_mtime_ns for path in (job / "signatures").glob("*.signatures")} == parts
    shutil.copy(PHOTOS / "retina-1.jpg", photos / "a-copy.jpg")
    to.unlink()
    assert main(["resume", str(job), "--update", "--progress", "none"]) == 0
    assert listed(to)["a-copy.jpg"] == ("retina-1.jpg", "exact")
    assert listed(to)["half.png"] == ("retina-1.jpg", "default")
