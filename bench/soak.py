"""``soak``: a million tiny pictures through the whole main job; what its processes hold must not grow."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import psutil
from PIL import Image

from ..engine.jobs.common.memory_estimate import Side
from ..engine.journal import read_status
from ..errors import JournalError, WorkerDiedError
from .harness import Options
from .job_process import start_job
from .result import Goal, Result, tabulate

_PICTURES: Final = 1_000_000
_FOLDERS: Final = 20
_ORIGINALS: Final = 64
"""Hard links are made of so many pictures: ext4 allows 65,000 of one file."""

_WORKERS: Final = 2
_ALLOWED: Final = 1.0
"""MiB that may be added for each 100,000 pictures; the books' byte an entry is within."""

_LASTING: Final = ("descriptors", "threads", "segments")
_SIDES: Final[tuple[Side, ...]] = ("parent", "workers")

_MIB: Final = 2**20
_SAMPLES: Final = 10
"""Fewer make no line."""

_DEADLINE: Final = 3 * 3600.0


@dataclass(frozen=True, slots=True)
class Moment:
    """The job's processes, seen from outside at one time.

    Attributes:
        written: rows that the books know.
        pss: bytes by side, files that are mapped included.
        held: bytes of all, without files: those are shared with whatever else runs.
        descriptors: open in all processes.
        threads: of all processes.
        segments: mappings of shared memory.
    """

    written: int
    pss: dict[Side, int]
    held: int
    descriptors: int
    threads: int
    segments: int


def run(options: Options) -> Result:
    """Embed a million pictures (``--n``: so many).

    Raises:
        WorkerDiedError: the job failed.
    """
    count = options.n or _PICTURES
    with tempfile.TemporaryDirectory(prefix="penstock-soak-", dir=options.data.parent) as name:
        folder = Path(name)
        draw(folder / "pictures", count)
        begin = time.perf_counter()
        moments = _watched(folder, 0.1 if count < 10_000 else 1.0)
        seconds = time.perf_counter() - begin
        report = json.loads((folder / "job" / "report.json").read_text())
    return _judged(count, seconds, moments, report["extra"]["memory_ceiling"])


def draw(folder: Path, count: int) -> None:
    """So many pictures of noise in large folders, most of them hard links of the first ones."""
    noise = np.random.default_rng(0)
    originals: list[Path] = []
    for number in range(count):
        below = folder / f"{number * _FOLDERS // count:02}"
        path = below / f"{number:07}.png"
        if len(originals) < min(count, _ORIGINALS):
            below.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
            originals.append(path)
            continue
        try:
            path.hardlink_to(originals[number % _ORIGINALS])
        except FileNotFoundError:
            below.mkdir()
            path.hardlink_to(originals[number % _ORIGINALS])


def _watched(folder: Path, every: float) -> list[Moment]:
    """Run the job, and look at it at intervals until it ends."""
    places = ["--to", f"bulk:{folder / 'rows'}", "--job", str(folder / "job")]
    line = ["embed", str(folder / "pictures"), *places, "--embedder", "gist:32", "--workers", str(_WORKERS)]
    moments: list[Moment] = []
    with start_job(line) as process:
        try:
            deadline = time.monotonic() + _DEADLINE
            while process.poll() is None and time.monotonic() < deadline:
                with suppress(psutil.Error, OSError, JournalError):  # a process is leaving; the books are being begun
                    moments.append(look(process.pid, folder / "job"))
                time.sleep(every)
        finally:
            process.kill()
    if process.returncode:
        raise WorkerDiedError(f"the job ended with status {process.returncode}")
    if not moments:
        raise WorkerDiedError("the job was over before anything could be measured; try a larger --n")
    return moments


def look(pid: int, job: Path) -> Moment:
    """How a job is now.

    Raises:
        OSError: one of its processes has just left.
    """
    parent = psutil.Process(pid)
    written = read_status(job).counts.written
    pss: dict[Side, int] = dict.fromkeys(_SIDES, 0)
    held = descriptors = threads = segments = 0
    for process in (parent, *parent.children(recursive=True)):
        sizes = _sizes(process.pid)
        pss["parent" if process.pid == pid else "workers"] += sizes["Pss:"]
        held += sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]
        descriptors += process.num_fds()
        threads += process.num_threads()
        segments += Path(f"/proc/{process.pid}/maps").read_text().count("/dev/shm/")
    return Moment(written, pss, held, descriptors, threads, segments)


def _sizes(pid: int) -> dict[str, int]:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {line[0]: int(line[1]) * 1024 for line in lines}


def slope(moments: Sequence[Moment]) -> tuple[float, float]:
    """The line of least squares through what is held: bytes at no picture, and bytes for each."""
    written = np.array([moment.written for moment in moments], np.float64)
    held = np.array([moment.held for moment in moments], np.float64)
    spread = ((written - written.mean()) ** 2).sum()
    each = float(((written - written.mean()) * (held - held.mean())).sum() / spread) if spread else 0.0
    return float(held.mean()) - each * float(written.mean()), each


def _judged(count: int, seconds: float, moments: list[Moment], ceiling: Mapping[str, Any]) -> Result:
    # Without the first tenth, when everything is made, and without the end, when files are merged.
    steady = [moment for moment in moments if 0.1 * count <= moment.written < count]
    enough = len(steady) >= _SAMPLES
    steady = steady if enough else moments
    start, each = slope(steady) if enough else (median(moment.held for moment in steady), 0.0)
    begin, end = ((start + each * share * count) / _MIB for share in (0.1, 1.0))
    most_held = begin + _ALLOWED * 0.9 * count / 100_000
    tenth = -(-len(steady) // 10)
    title = f"{count:,} tiny pictures into Parquet, {_WORKERS} workers, GIST, with books"
    lasting = {
        f"{name}, {when}": [max(1.0, median(getattr(moment, name) for moment in some))]
        for name in _LASTING
        for when, some in (("first tenth", steady[:tenth]), ("last tenth", steady[-tenth:]))
    }
    same = [Goal(f"{name}, last tenth", 1.0, f"{name}, first tenth", at_most=True) for name in _LASTING]
    peaks = {str(side): [max(moment.pss[side] for moment in moments) / _MIB] for side in _SIDES}
    total = max(sum(moment.pss.values()) for moment in moments) / _MIB
    most = ceiling["bytes"] / _MIB
    tables = (
        tabulate(
            f"{title}: memory held, by the line of least squares",
            "MiB",
            {"after a tenth": [begin], "at the end": [end]},
            goals=[Goal("at the end", most_held, at_most=True)] if enough else (),
        ),
        tabulate("What is open, in all processes", "number", lasting, goals=same if enough else ()),
        tabulate(
            "Memory at its peak (PSS)",
            "MiB",
            {**peaks, "total": [total], "ceiling": [most]},
            goals=[Goal("total", most, at_most=True)],
        ),
        tabulate("The rate, starting and merging included", "pictures/s", {"soak": [count / seconds]}),
    )
    growth = f"{each * 100_000 / _MIB:+.3f} MiB for each 100,000 pictures, by {len(steady):,} samples"
    return Result("soak", tables, {}, (growth if enough else "over too soon to say whether it grows: larger --n",))
