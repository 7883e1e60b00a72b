"""`penstock dedup` as a whole: pictures in, the list of duplicates out."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import penstock
from penstock.engine.cli import main
from penstock.engine.jobs.dedup.stores import is_store
from penstock.tests.whole_jobs import draw_folder, started, wait_for, written
from penstock.tests.whole_jobs import penstock as penstock_command

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


def test_a_job_that_is_run_again_makes_no_signature_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rule judges the same signatures; `resume` goes on as the job was last run; new pictures join it."""
    photos, to, job = copies(tmp_path / "photos"), tmp_path / "duplicates.parquet", tmp_path / "job"
    monkeypatch.chdir(tmp_path)
    command = ["dedup", str(photos), "--to", to.name, "--job", str(job), *OWN]
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
    monkeypatch.chdir("/")
    assert main(["resume", str(job), "--update", "--progress", "none"]) == 0
    assert listed(to)["a-copy.jpg"] == ("retina-1.jpg", "exact")
    assert listed(to)["half.png"] == ("retina-1.jpg", "default")


def has_written(folder: Path, least: int) -> bool:
    return written(folder) >= least


@pytest.mark.kills
def test_a_job_that_is_killed_again_and_again_lists_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    """To the last byte: killed while it reads, and when all has been read; other workers, another order."""
    photos = draw_folder(tmp_path / "photos", 60)
    for number in range(0, 60, 2):
        with Image.open(photos / f"{number:04}.png") as image:
            image.resize((48, 48)).save(photos / f"{number:04}-large.png")
    whole, to, job = tmp_path / "whole.parquet", tmp_path / "killed.parquet", tmp_path / "job"
    assert main(["dedup", str(photos), "--to", str(whole), *OWN]) == 0
    assert len(listed(whole)) == 30
    small = ["--batch-size", "2", "--insert-batch-size", "1", "--progress", "none", "--to", str(to)]
    for least, workers in ((1, 1), (15, 2), (30, 1), (60, 2), (90, 1)):
        command = penstock_command("dedup", str(photos), "--job", str(job), "--workers", str(workers), *small)
        with started(command) as process:
            wait_for(process, partial(has_written, tmp_path, least))
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert main(["resume", str(job), "--progress", "none"]) == 0
    assert to.read_bytes() == whole.read_bytes()
    assert written(tmp_path) == 90


def test_a_picture_that_is_gone_is_nobodys_keeper(tmp_path: Path) -> None:
    """Whoever deletes what is listed keeps one of each group."""
    photos, to, job = copies(tmp_path / "photos"), tmp_path / "duplicates.parquet", tmp_path / "job"
    command = ["dedup", str(photos), "--to", str(to), "--job", str(job), *OWN]
    assert main(command) == 0
    assert listed(to)["half.png"] == ("retina-1.jpg", "default")
    (photos / "retina-1.jpg").unlink()
    assert main([*command, "--update"]) == 0
    assert "half.png" not in listed(to)


def test_of_flat_pictures_only_equal_files_are_duplicates_under_the_strict_rule(tmp_path: Path) -> None:
    """That two pages are blank says nothing; that they are the same file does."""
    pages, to = tmp_path / "pages", tmp_path / "duplicates.parquet"
    pages.mkdir()
    Image.new("RGB", (80, 80), "white").save(pages / "blank.png")
    Image.new("RGB", (90, 90), "white").save(pages / "other.png")
    shutil.copy(pages / "blank.png", pages / "same.png")
    assert main(["dedup", str(pages), "--to", str(to), "--rule", "strict", *OWN]) == 0
    assert listed(to) == {"same.png": ("blank.png", "exact")}


def test_the_page_shows_who_stays_and_who_does_not(tmp_path: Path) -> None:
    """Both as pictures, with the reason."""
    photos, page = copies(tmp_path / "photos"), tmp_path / "page.html"
    assert main(["dedup", str(photos), "--to", str(tmp_path / "d.parquet"), "--html", str(page), *OWN]) == 0
    text = page.read_text()
    assert text.count("data:image/jpeg") == 6
    assert "half.png" in text
    assert "3 not needed" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rule", "vectors:0.97"), "a store holds"),
        (("--delete",), "never touched"),
        (("--to", "list.csv"), "Parquet"),
        (("--to", "nowhere/list.parquet"), "folder must exist"),
        (("--html", "nowhere/page.html"), "--html: "),
        (("--html", "-"), "never standard output"),
        (("--rule", "best"), "vectors:0.97"),
    ],
)
def test_what_cannot_be_done_with_pictures_is_refused_before_they_are_read(
    tmp_path: Path, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As wrong usage, with what to do instead."""
    assert main(["dedup", str(PHOTOS), *options, *OWN]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        *[(spec, True) for spec in ("photos.db", "photos.db?collection=a", "http://host:19530", "parquet:rows")],
        *[(spec, True) for spec in ("parquet:s3://bucket/rows", "npy:rows", "lance:rows", "parquet:rows?metric=L2")],
        *[(spec, True) for spec in ("bulk:rows", "npy:rows?metric=L2")],
        *[(spec, False) for spec in ("pictures", "s3://bucket/photos", "neither:photos", "wds:photos.tar")],
        *[(spec, False) for spec in ("parquet:part-*.parquet", "parquet:t.parquet?image=image&key=id")],
        *[(spec, False) for spec in ("lance:photos?image=image", "https://host/a.jpg?token=1&a=1&a=2")],
    ],
)
def test_tables_of_pictures_and_links_are_no_stores_of_vectors(spec: str, expected: bool) -> None:
    """They are read as any pictures are."""
    assert is_store(spec) == expected
