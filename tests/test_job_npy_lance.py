"""Whole jobs into NumPy files and into Lance: killed, gone on with, searched."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engine.cli import main
from penstock.engine.journal import read_status
from penstock.sinks import SinkOptions, make_sink
from penstock.tests.whole_jobs import draw_folder, started, wait_for, with_small_writes
from penstock.tests.whole_jobs import penstock as command

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.slow


def has_written(job: Path, least: int) -> Callable[[], bool]:
    """Whether the books say so many by now."""
    return lambda: (job / "job.json").exists() and read_status(job).counts.written >= least


@pytest.mark.kills
@pytest.mark.parametrize("kind", ["npy", "lance"])
def test_a_job_that_is_killed_goes_on_and_its_rows_are_searched(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each picture is there once, however often its job was killed."""
    if kind == "lance":
        pytest.importorskip("lance")
    pictures, rows, job = draw_folder(tmp_path / "pictures", 100), tmp_path / "rows", tmp_path / "job"
    own = ["--workers", "1", "--batch-size", "4", "--embedder", "gist:32", "--insert-batch-size", "4"]
    to = ["--to", f"{kind}:{rows}", "--job", str(job)]
    for least in (1, 20):
        with started(with_small_writes("embed", str(pictures), *to, *own, "--progress", "none")) as process:
            wait_for(process, has_written(job, least))
            process.send_signal(signal.SIGKILL)
            process.wait()
    with started(command("resume", str(job), "--progress", "none")) as process:
        process.communicate()
        assert process.returncode == 0
    found = make_sink(f"{kind}:{rows}", SinkOptions()).look()
    assert found is not None
    assert found.rows == 100
    assert main(["search", f"{kind}:{rows}", str(pictures / "0042.png"), "-k", "2"]) == 0
    assert "0042.png" in capsys.readouterr().out.splitlines()[0]
