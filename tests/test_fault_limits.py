"""What is bounded stays bounded: memory while the store stalls, work after the failure budget; and many open files."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

import penstock
from penstock import PipelineFailure, Report
from penstock.errors import UnreadableError
from penstock.tests.whole_jobs import draw_folder

pytestmark = pytest.mark.slow

BATCH, GROUP, WORKERS = 8, 16, 1
SMALL: dict[str, Any] = {"batch_size": BATCH, "insert_batch_size": GROUP, "workers": WORKERS, "progress": "none"}

HELD = 400
"""More pictures than slots, channels and calls under way can hold with these settings, which is about 300."""


class Stall:
    """Stops the store's process once some rows are written, looks at the job for a while, and lets it go on.

    Attributes:
        drawn, memory: at each look while nothing could be written: pictures drawn, bytes of this process and workers.
    """

    interval = 0.25
    looks = 12

    def __init__(self, pictures: int) -> None:
        self._left = pictures
        self.store: psutil.Process | None = None
        self.drawn: list[int] = []
        self.memory: list[int] = []
        self.given = 0

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """So many pictures of noise, each drawn when it is asked for."""
        noise = np.random.default_rng(0)
        for number in range(self._left):
            self.given = number + 1
            yield noise.integers(0, 256, (64, 64, 3), np.uint8)

    def update(self, report: Report) -> None:
        """Called by the job."""
        if self.store is None and report.accounting.written >= 50:
            self.store = store_process()
            self.store.send_signal(signal.SIGSTOP)
        elif self.store is not None and len(self.drawn) < self.looks:
            self.drawn.append(self.given - report.accounting.written)
            me = psutil.Process()
            family = [me, *(child for child in me.children(recursive=True) if child.name().startswith("penstock"))]
            self.memory.append(sum(process.memory_info().rss for process in family))
            if len(self.drawn) == self.looks:
                self.store.send_signal(signal.SIGCONT)


def store_process() -> psutil.Process:
    """The process that serves the Milvus Lite store."""
    (found,) = [
        child
        for child in psutil.Process().children(recursive=True)
        if any("lite_child" in word for word in child.cmdline())
    ]
    return found


def test_a_store_that_stalls_stops_the_job_and_not_its_memory(tmp_path: Path) -> None:
    """What is drawn ahead is what slots and channels hold; memory stays; then all is written."""
    stall = Stall(3000)
    report = penstock.embed_images(stall.pictures(), to=str(tmp_path / "rows.db"), watcher=stall, **SMALL)
    assert len(stall.drawn) == stall.looks
    settled = stall.looks // 2
    assert len(set(stall.drawn[settled:])) == 1, stall.drawn
    assert stall.drawn[-1] <= HELD
    assert stall.memory[-1] <= 1.05 * stall.memory[settled], stall.memory
    assert report.accounting.written == 3000


def test_a_spent_budget_ends_the_job_with_what_is_under_way(tmp_path: Path) -> None:
    """The failure is a group of its causes, each noted with its stage; a batch for each slot may come after it."""
    pictures = draw_folder(tmp_path / "pictures", 100)
    for number in range(400):
        (pictures / f"{number % 100:04}-{number}.png").write_bytes(b"<html>404</html>")
    with pytest.raises(PipelineFailure) as caught:
        penstock.embed_images(pictures, to=str(tmp_path / "rows.db"), max_failures=20, **SMALL)
    causes = caught.value.exceptions
    assert causes
    assert all(isinstance(cause, UnreadableError) for cause in causes), causes
    assert all(any("preprocess" in note for note in cause.__notes__) for cause in causes)
    letters = (tmp_path / "rows.dead-letters.jsonl").read_text().splitlines()
    assert 20 < len(letters) <= 20 + 3 * BATCH


CROWDED = """
    import os, resource, sys
    import penstock

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    settings = {"workers": 1, "image_size": 32, "embedder": "gist:32"}
    print(penstock.embed_images(sys.argv[1], to="photos.db", **settings).accounting.written)
"""


def test_a_host_with_many_open_files_runs_jobs(tmp_path: Path) -> None:
    """Descriptors over 1,023, which select(2) cannot wait for: the store and a worker start, and rows are written."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.skip("this machine allows too few open files")
    draw_folder(tmp_path / "pictures", 3)
    command = [sys.executable, "-c", textwrap.dedent(CROWDED), "pictures"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["3"], done.stderr
