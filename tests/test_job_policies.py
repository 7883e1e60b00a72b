"""Policies in the whole job: files that cannot be read for a while, callables that lose their connection, what resumes.

A file with a write lease on it is really unreadable for a while: a non-blocking open, as the workers' is, fails with
EAGAIN for as long as another process keeps the lease (fcntl(2), F_SETLEASE).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penstock import Fail, ImageEmbeddingPipeline, PipelineFailure, Report, Retry, Skip, embed_images, fetch
from penstock.engine import StageReport
from penstock.engine.cli import main
from penstock.engine.jobs.common.drive import Interrupt
from penstock.errors import ReadError
from penstock.tests.whole_jobs import draw_folder

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "insert_batch_size": 4, "embedder": "gist:32"}
_modules = count()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Ten small pictures of noise in a folder of their own."""
    return sorted(draw_folder(tmp_path / "pictures", 10).iterdir())


@pytest.fixture(autouse=True)
def _hears_no_lease_breaking() -> Iterator[None]:
    """The system tells who keeps a lease that somebody wants the file; unheard, that signal ends the process."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@contextmanager
def unreadable(path: Path) -> Generator[Callable[[], object]]:
    """While the block runs, or until the function it gives is called, the file cannot be opened."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield lambda: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        os.close(fd)


class When:
    """A watcher that calls a function once, when something is so."""

    interval = 0.01

    def __init__(self, so: Callable[[StageReport], bool], then: Callable[[], object]) -> None:
        self._so, self._then = so, [then]

    def update(self, report: Report) -> None:
        if self._then and self._so(stage_of(report, "preprocess")):
            self._then.pop()()


def stage_of(report: Report | None, name: str) -> StageReport:
    assert report is not None
    return next(stage for stage in report.stages if stage.name == name)


def run(pictures: list[Path], folder: Path, **how: Any) -> Report:
    """The job in ``folder``, into Parquet files."""
    return embed_images(
        pictures[0].parent, to=f"bulk:{folder / 'rows'}", job=folder / "job", progress="none", **SMALL | how
    )


def letters(folder: Path) -> list[tuple[str, str, str, int]]:
    """Name, stage, error and attempts of each dead letter."""
    lines = (folder / "job" / "dead-letters.jsonl").read_text().splitlines()
    return [
        (Path(letter["key"]).name, letter["stage"], letter["error"], letter["attempts"])
        for letter in map(json.loads, lines)
    ]


# -- files that cannot be read for a while ----------------------------------------------------------------------------


def test_a_file_that_is_unreadable_for_a_while_ends_as_a_row(pictures: list[Path], tmp_path: Path) -> None:
    """Read in a worker process, in a batch with others: those go on, it is tried again until it can be read."""
    with unreadable(pictures[5]) as release:
        report = run(
            pictures,
            tmp_path,
            on_failure={"preprocess": Retry(1000, first=0.02, longest=0.02)},
            watcher=When(lambda stage: stage.retried >= 2, release),
        )
    assert (report.accounting.written, report.accounting.dead) == (10, 0)
    assert stage_of(report, "preprocess").retried >= 2
    assert stage_of(report, "embed").retried == 0
    assert not (tmp_path / "job" / "dead-letters.jsonl").exists()


def test_one_that_stays_is_a_dead_letter_that_counts_all_attempts(
    pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three as said, three more with each `penstock retry`, and at last a row; the others are not held up."""
    with unreadable(pictures[5]):
        report = run(pictures, tmp_path, on_failure={"preprocess": Retry(3)})
        assert (report.accounting.written, report.accounting.dead) == (9, 1)
        assert stage_of(report, "preprocess").retried == 2
        assert letters(tmp_path) == [(pictures[5].name, "preprocess", "ReadError", 3)]
        assert main(["retry", str(tmp_path / "job")]) == 0
        assert letters(tmp_path)[-1] == (pictures[5].name, "preprocess", "ReadError", 6)
    assert main(["retry", str(tmp_path / "job"), "--stage", "preprocess"]) == 0
    assert "10 written, 0 filtered, 0 dead, 0 remaining" in capsys.readouterr().out
    assert not (tmp_path / "job" / "dead-letters.jsonl").exists()


def test_what_waits_when_the_job_is_drained_is_done_by_the_next_run(pictures: list[Path], tmp_path: Path) -> None:
    """Whoever leaves gives nothing up: no dead letter, and `resume` finds it."""
    interrupt = Interrupt()
    with unreadable(pictures[5]):
        report = run(
            pictures,
            tmp_path,
            on_failure={"preprocess": Retry(3, first=1e8, longest=1e8)},
            watcher=When(lambda stage: stage.retrying > 0, interrupt.request),
            interrupt=interrupt,
        )
    job = report.extra["job"]
    assert (job["dead"], job["remaining"], report.accounting.in_flight) == (0, 10 - job["written"], 1)
    assert main(["resume", str(tmp_path / "job")]) == 0
    assert run(pictures, tmp_path).extra["job"]["written"] == 10


@pytest.mark.parametrize("way", ["insert_images", "insert_images_async"])
def test_the_faces_without_workers_follow_the_same_policies(
    way: str, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be read twice is a row at the third attempt; one that is not there is tried once."""
    failing = [2]

    def read_file(path: str, max_bytes: int) -> bytes:
        if path == str(pictures[5]) and failing[0]:
            failing[0] -= 1
            error = ReadError(f"{path!r} cannot be read: Input/output error")
            error.errno = errno.EIO
            raise error
        return fetch.read_file(path, max_bytes)

    monkeypatch.setattr("penstock.preprocess.decode.decode.read_file", read_file)
    gone = tmp_path / "gone.jpg"
    with ImageEmbeddingPipeline(to=f"bulk:{tmp_path / 'rows'}", job=tmp_path, **SMALL) as pipeline:
        ids = getattr(pipeline, way)([*pictures, gone], ids=range(11))
        report = pipeline.report
    assert ids == [*range(10), None]
    assert (stage_of(report, "preprocess").retried, stage_of(report, "preprocess").failed) == (2, 1)
    (letter,) = (tmp_path / "dead-letters.jsonl").read_text().splitlines()
    assert json.loads(letter)["attempts"] == 1


# -- a job that must be whole -----------------------------------------------------------------------------------------


def test_a_job_that_may_not_skip_ends_at_the_first_failure_and_goes_on_when_it_is_mended(
    pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture is named with the exit status of a failure; it is no dead letter, so the next run does it."""
    good = pictures[5].read_bytes()
    pictures[5].write_bytes(good[:100])
    where = ["--to", f"bulk:{tmp_path / 'rows'}", "--job", str(tmp_path / "job"), "--workers", "1"]
    how = ["--batch-size", "4", "--on-failure", "preprocess=fail", "--on-failure", "insert=retry:2,fail"]
    assert main(["embed", str(pictures[0].parent), *where, *how, "--progress", "none"]) == 1
    said = capsys.readouterr().err
    assert f"item {pictures[5]} failed, and on_failure is fail" in said
    assert not (tmp_path / "job" / "dead-letters.jsonl").exists()
    assert main(["resume", str(tmp_path / "job")]) == 1
    pictures[5].write_bytes(good)
    assert main(["resume", str(tmp_path / "job")]) == 0
    assert "10 written, 0 filtered, 0 dead, 0 remaining" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("policy", "written"), [(Fail(), None), (Skip(0), None), (Skip(1), 9), (Retry(then=Fail()), None), (Retry(), 9)]
)
def test_a_row_that_is_refused_has_the_policy_of_insert(
    policy: Any, written: int | None, pictures: list[Path], callables: Callable[[str], str], tmp_path: Path
) -> None:
    """A vector that is no number can never be stored, and is not tried again."""
    embedder = callables("    vectors[marked(x), 0] = np.nan\n    return vectors")
    how = {"embedder": embedder, "on_failure": {"insert": policy}}
    if written is None:
        with pytest.raises(PipelineFailure, match="stage 'insert'"):
            run(pictures, tmp_path, **how)
    else:
        report = run(pictures, tmp_path, **how)
        assert (report.accounting.written, stage_of(report, "insert").retried) == (written, 0)
        assert letters(tmp_path)[0][1:] == ("insert", "RowRefusedError", 1)


# -- callables that lose their connection -----------------------------------------------------------------------------


@pytest.fixture
def callables(tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module with an embedder, whose ``marked`` finds white pictures; gives its spec.

    The sixth picture is made white.
    """
    monkeypatch.syspath_prepend(tmp_path)
    Image.fromarray(np.full((64, 64, 3), 255, np.uint8)).save(pictures[5])

    def make(body: str) -> str:
        name = f"losing_connections_{next(_modules)}"
        (tmp_path / f"{name}.py").write_text(
            "import numpy as np\n"
            "calls = []\n"
            "def marked(x):\n"
            "    return x.reshape(len(x), -1).min(1) > 2\n"
            "def embed(x):\n"
            "    calls.append(len(x))\n"
            "    vectors = np.array(x.reshape(len(x), -1)[:, :8], np.float32) + 1\n"
            f"{body}\n"
        )
        return f"python:{name}:embed"

    return make


def test_a_batch_whose_connection_is_lost_is_tried_again_whole(
    pictures: list[Path], callables: Callable[[str], str], tmp_path: Path
) -> None:
    """Not in halves: the server was away, no picture is to blame."""
    embedder = callables("    if len(calls) in (3, 4):\n        raise ConnectionResetError('away')\n    return vectors")
    report = run(pictures, tmp_path, embedder=embedder, on_failure={"embed": Retry(3, first=0.001)})
    assert (report.accounting.written, report.accounting.dead) == (10, 0)
    assert import_module(embedder.split(":")[1]).calls == [2, 4, 4, 4, 4, 2]  # a trial, then three batches
    assert stage_of(report, "embed").retried == 8


@pytest.mark.parametrize("kind", ["ConnectionResetError", "ValueError"])
def test_the_last_attempt_finds_the_picture_that_is_to_blame(
    kind: str, pictures: list[Path], callables: Callable[[str], str], tmp_path: Path
) -> None:
    """A picture that makes the server hang up every time fails alone; one that is refused is not tried again."""
    embedder = callables(f"    if marked(x).any():\n        raise {kind}('no')\n    return vectors")
    report = run(pictures, tmp_path, embedder=embedder, on_failure={"embed": Retry(3, first=0.001)})
    assert (report.accounting.written, report.accounting.dead) == (9, 1)
    attempts = 3 if kind == "ConnectionResetError" else 1
    assert letters(tmp_path) == [(pictures[5].name, "embed", "EmbedError", attempts)]
    assert stage_of(report, "embed").retried == 4 * (attempts - 1)
