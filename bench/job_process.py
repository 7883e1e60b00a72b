"""Jobs of ``penstock`` as processes, for benchmarks that kill them or watch them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from ..errors import WorkerDiedError


def start_job(line: Sequence[str]) -> subprocess.Popen[bytes]:
    """Begin a job, without progress or output.

    Args:
        line: the command and its arguments, as after ``penstock``.
    """
    command = [sys.executable, "-m", "penstock", *line, "--progress", "none"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def run_to_end(line: Sequence[str], deadline: float) -> float:
    """Run a job; returns how many seconds it took.

    Args:
        line: see `start_job`.
        deadline: seconds that it may take.

    Raises:
        WorkerDiedError: it failed.
        subprocess.TimeoutExpired: it took longer.
    """
    begin = time.perf_counter()
    with start_job(line) as process:
        if status := process.wait(deadline):
            raise WorkerDiedError(f"the job {' '.join(line)} ended with status {status}")
    return time.perf_counter() - begin
