"""Jobs that keep books: killed, resumed, updated, retried. What a job leaves is what an undisturbed one leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock import ConfigError, Report
from penstock.engine.cli import main
from penstock.engine.journal import JobFolder, read_status
from penstock.errors import JobLockedError
from penstock.sinks import MilvusSink, row_key
from penstock.tests.waiting import DEADLINE
from penstock.tests.whole_jobs import digest, digest_of, draw, draw_folder, embed, started, stored, wait_for, written

pytestmark = pytest.mark.slow

PICTURES = 360
BATCH, GROUP, WORKERS = 8, 8, 2
SMALL: dict[str, Any] = {"batch_size": BATCH, "insert_batch_size": GROUP, "workers": WORKERS}
FLAGS = ["--batch-size", str(BATCH), "--insert-batch-size", str(GROUP), "--workers", str(WORKERS)]

IN_FLIGHT = WORKERS * 3 * BATCH + (2 + 1) * BATCH + (8 + 2 + 4) * GROUP
"""Pictures that slots, channels and calls under way can hold with these settings, and the handover at the end."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with small pictures of noise, a text file and a broken picture."""
    folder = draw_folder(tmp_path / "pictures", PICTURES)
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    return folder


def run(pictures: Path, folder: Path, **settings: Any) -> Report:
    """The job in ``folder``, in this process."""
    folder.mkdir(exist_ok=True)
    return penstock.embed_images(
        pictures, to=str(folder / "rows.db"), job=folder / "job", progress="none", **SMALL | settings
    )


@pytest.mark.kills
@pytest.mark.parametrize(
    "kills",
    [
        pytest.param((1, 60, 330), id="early and late"),
        pytest.param((1, 60, 61, 140), marks=pytest.mark.nightly, id="early"),
        pytest.param((11, 150, 240, 330), marks=pytest.mark.nightly, id="late"),
    ],
)
def test_a_job_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    pictures: Path, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    """SIGKILL of the parent; each run goes on where the books end, and only what was in flight is done again."""
    for threshold in kills:
        with started(embed(pictures, tmp_path / "killed", *FLAGS)) as process:
            wait_for(process, lambda threshold=threshold: written(tmp_path / "killed") >= threshold)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.wait()
        known = written(tmp_path / "killed")
        assert 0 <= stored(tmp_path / "killed") - known <= IN_FLIGHT
    report = run(pictures, tmp_path / "killed")
    assert report.extra["job"]["remaining"] == 0
    books = report.extra["job"]
    assert (books["written"], books["filtered"], books["dead"]) == (PICTURES, 1, 1)
    run(pictures, tmp_path / "undisturbed")
    assert digest(tmp_path / "killed", pictures) == digest(tmp_path / "undisturbed", pictures)


def test_a_finished_job_run_again_does_nothing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, starts nothing, and writes nothing."""
    run(pictures, tmp_path / "a")
    job = tmp_path / "a" / "job"
    before = {path.name: path.read_bytes() for path in job.iterdir() if path.name != "lock"}
    again = run(pictures, tmp_path / "a")
    assert (again.accounting.read, list(again.stages)) == (0, [])
    assert {path.name: path.read_bytes() for path in job.iterdir() if path.name != "lock"} == before
    assert main(["resume", str(job)]) == 0
    assert (
        f"finished already: {PICTURES + 2} entries: {PICTURES} written, 1 filtered, 1 dead, 0 remaining"
        in capsys.readouterr().out
    )


@pytest.mark.kills
def test_a_job_goes_on_with_other_workers_and_batches(pictures: Path, tmp_path: Path) -> None:
    """How the work is cut is no part of what the job is."""
    with started(embed(pictures, tmp_path / "a", *FLAGS)) as process:
        wait_for(process, lambda: written(tmp_path / "a") >= 100)
        process.send_signal(signal.SIGKILL)
    report = run(pictures, tmp_path / "a", workers=1, batch_size=32, insert_batch_size=100)
    assert report.extra["job"]["written"] == PICTURES
    assert report.accounting.written < PICTURES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": 96}, "pixels was size 64, and is size 96 now"),
        ({"embedder": "gist:32"}, "embedder was gist [0-9a-f]+, and is gist"),
        ({"collection": "other"}, "store was"),
    ],
)
def test_another_job_is_refused_with_the_difference(
    pictures: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """Nothing is mixed by a slip; the message says what differs and which option goes on regardless."""
    run(pictures, tmp_path / "a")
    with pytest.raises(ConfigError, match=rf"(?s)begun otherwise: {said}.* or go on with --accept-changes"):
        run(pictures, tmp_path / "a", **change)
    (tmp_path / "more").mkdir()
    with pytest.raises(ConfigError, match="source was"):
        penstock.embed_images(
            [pictures, tmp_path / "more"], to=str(tmp_path / "a" / "rows.db"), job=tmp_path / "a" / "job"
        )


@pytest.mark.kills
def test_changes_can_be_accepted(pictures: Path, tmp_path: Path) -> None:
    """What is written stays; what remains goes to the new place."""
    with started(embed(pictures, tmp_path / "a", *FLAGS)) as process:
        wait_for(process, lambda: written(tmp_path / "a") >= 100)
        process.send_signal(signal.SIGKILL)
    known = written(tmp_path / "a")
    report = run(pictures, tmp_path / "a", collection="other", accept_changes=True)
    assert report.extra["job"]["written"] == PICTURES
    with MilvusSink(str(tmp_path / "a" / "rows.db"), "other") as sink:
        assert sink.count() == PICTURES - known


def test_an_update_does_new_and_changed_files(pictures: Path, tmp_path: Path) -> None:
    """New ones are added, changed ones are written over by key, gone ones are forgotten; the rest is left alone."""
    run(pictures, tmp_path / "a")
    before = digest(tmp_path / "a", pictures)
    noise = np.random.default_rng(1)
    draw(pictures / "0007.png", noise)
    os.utime(pictures / "0007.png", ns=(1, 1))
    draw(pictures / "new.png", noise)
    (pictures / "0009.png").unlink()
    assert run(pictures, tmp_path / "a").accounting.read == 0
    report = run(pictures, tmp_path / "a", update=True)
    assert report.accounting.written == 2
    assert report.extra["job"]["entries"] == PICTURES + 2
    after = digest_of(tmp_path / "a", [*before, row_key(str(pictures / "new.png"))])
    changed, new = row_key(str(pictures / "0007.png")), row_key(str(pictures / "new.png"))
    assert {key for key in after if after[key] != before.get(key)} == {changed, new}


def test_a_retry_does_dead_letters_again(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that were chosen; how often they were tried is counted on."""
    (pictures / "page.png").write_text("<html>404</html>")
    run(pictures, tmp_path / "a")
    job = tmp_path / "a" / "job"
    assert main(["retry", str(job), "--stage", "embed"]) == 0
    assert "no dead letter has the stage embed" in capsys.readouterr().out
    draw(pictures / "broken.png", np.random.default_rng(2))
    assert main(["retry", str(job)]) == 0
    counts = read_status(job).counts
    assert (counts.written, counts.dead, counts.remaining) == (PICTURES + 1, 1, 0)
    letters = [json.loads(line) for line in (job / "dead-letters.jsonl").read_text().splitlines()]
    assert [letter["attempts"] for letter in letters if letter["key"].endswith("page.png")] == [2]
    assert len(letters) == counts.dead
    assert row_key(str(pictures / "broken.png")) in digest_of(tmp_path / "a", [row_key(str(pictures / "broken.png"))])


def test_a_job_that_runs_elsewhere_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    """The message says who runs it."""
    run(pictures, tmp_path / "a")
    with JobFolder.create_or_open(tmp_path / "a" / "job"), pytest.raises(JobLockedError, match=str(os.getpid())):
        run(pictures, tmp_path / "a")


@pytest.mark.kills
def test_ctrl_c_says_how_to_go_on(pictures: Path, tmp_path: Path) -> None:
    """The first drains, keeps the books, and names the command; that command does the rest."""
    with started(embed(pictures, tmp_path / "a", *FLAGS)) as process:
        wait_for(process, lambda: written(tmp_path / "a") >= 50)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 130, said
    assert f"to go on: penstock resume {tmp_path / 'a' / 'job'}" in said
    assert stored(tmp_path / "a") == written(tmp_path / "a") < PICTURES
    assert main(["resume", str(tmp_path / "a" / "job")]) == 0
    assert stored(tmp_path / "a") == written(tmp_path / "a") == PICTURES


@pytest.mark.kills
def test_an_overwriting_job_that_is_resumed_keeps_its_own_rows(pictures: Path, tmp_path: Path) -> None:
    """It clears the collection once, at its beginning."""
    with started(embed(pictures, tmp_path / "a", *FLAGS, "--overwrite")) as process:
        wait_for(process, lambda: written(tmp_path / "a") >= 100)
        process.send_signal(signal.SIGKILL)
    run(pictures, tmp_path / "a", mode="overwrite")
    assert stored(tmp_path / "a") == PICTURES


def test_the_status_of_a_job_as_json(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, errors and whether it is finished; a folder that is no job is said to be none."""
    run(pictures, tmp_path / "a")
    assert main(["status", str(tmp_path / "a" / "job"), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["finished"]
    assert status["counts"] == {"total": PICTURES + 2, "written": PICTURES, "filtered": 1, "dead": 1, "remaining": 0}
    assert list(status["errors"].values()) == [1]
    assert main(["status", str(tmp_path)]) == 2
    assert "is no job folder" in capsys.readouterr().err
