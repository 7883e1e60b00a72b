"""``videos``: mining beside sampling alone, two workers against one; a job that is killed again and again."""

from __future__ import annotations

import operator
import os
import random
import resource
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..engine.journal import read_status
from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .job_process import run_to_end, start_job
from .result import Goal, Result, Table, tabulate
from .video_clips import make_clip

_SECONDS, _KEYFRAME = 30, 5
_FEW, _MANY = 2, 8
"""Copies of the clip in the two jobs whose difference is taken: what a job costs once is in both."""

_WORKERS = "1 worker", "2 workers"
_VIDEOS, _KILLS = 200, 20
_DEADLINE = 900.0


def run(options: Options) -> Result:
    """A clip of 720p30 at one frame a second, filtered and embedded by GIST; then ``--n`` short videos, 20 kills.

    Raises:
        WorkerError: a variant broke down.
        ModuleNotFoundError: PyAV is not installed.
    """
    rounds = options.rounds or 3
    clip = str(make_clip(options.data, _SECONDS, _KEYFRAME))
    sampled = Variant("sampler alone", "video_frames:taken", {"path": clip, "way": "penstock"}, one_core=True)
    mined = [
        Variant(name, "videos:mined", {"clip": clip, "workers": number}) for number, name in enumerate(_WORKERS, 1)
    ]
    samples = run_rounds([sampled, *mined], rounds)
    cost, rate = samples.of("ms"), samples.of("rate")
    tables = [
        tabulate(
            "Sampled, filtered, embedded by GIST: CPU of all processes",
            "ms for each frame",
            {"sampler alone": cost["sampler alone"], "mined": cost["1 worker"]},
            baseline="sampler alone",
            goals=[Goal("mined", 1.15, "sampler alone", at_most=True)],
        ),
        tabulate(
            "The same job with two workers",
            "seconds of video a second",
            {name: rate[name] for name in _WORKERS},
            baseline="1 worker",
            goals=[Goal("2 workers", 1.85, "1 worker")],
        ),
        _killed(options.data, options.n or _VIDEOS, random.Random(rounds)),
    ]
    return Result("videos", tables, samples.skipped)


@contextmanager
def mined(clip: str, workers: int) -> Generator[Measure, None, None]:
    """Mine copies of a clip by ``penstock videos``: few, then many; the difference is what they cost."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        few, many = (_links(Path(name) / str(count), clip, count) for count in (_FEW, _MANY))

        def job(folder: Path) -> tuple[float, float]:
            before = _cpu()
            with tempfile.TemporaryDirectory(prefix="penstock-bench-") as own:
                settings = ["--to", "null:", "--job", f"{own}/job", "--filter", "blur,black,flat"]
                seconds = run_to_end(["videos", str(folder), *settings, "--workers", str(workers)], _DEADLINE)
            return seconds, _cpu() - before

        def measure() -> Measures:
            (wall_few, cpu_few), (wall_many, cpu_many) = job(few), job(many)
            more = _MANY - _FEW
            return {
                "ms": (cpu_many - cpu_few) / (more * _SECONDS) * 1000,
                "rate": more * _SECONDS / (wall_many - wall_few),
            }

        yield measure


def _cpu() -> float:
    """Seconds of processes that have ended, and of theirs."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _links(folder: Path, clip: str, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        os.link(clip, folder / f"{number:04}.mp4")
    return folder


def _killed(data: Path, count: int, draw: random.Random) -> Table:
    """Rows of a job that was killed at random moments, against those of one that nobody disturbed."""
    import pyarrow.parquet as pq

    clip = str(make_clip(data, 3, 1))
    kills = min(_KILLS, max(1, count // 5))
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=data) as name:
        folder = Path(name)
        _links(folder / "videos", clip, count)
        run_to_end(_line(folder, "undisturbed"), _DEADLINE)
        for moment in sorted(draw.randrange(count) for _ in range(kills)):
            with start_job(_line(folder, "killed")) as process:
                deadline = time.monotonic() + _DEADLINE
                while process.poll() is None and _done(folder) < moment and time.monotonic() < deadline:
                    time.sleep(draw.random() * 0.02)
                process.kill()
        run_to_end(_line(folder, "killed"), _DEADLINE)
        true, found = (pq.read_table(folder / f"{job}-rows").to_pylist() for job in ("undisturbed", "killed"))
    title = f"{count:,} videos, {kills} SIGKILLs of the parent: rows as in an undisturbed run"
    same = 100.0 * sum(map(operator.eq, true, found)) / max(len(true), len(found), 1)
    return tabulate(title, "%", {"killed": [same]}, goals=[Goal("killed", 100.0)])


def _line(folder: Path, name: str) -> list[str]:
    own = ["--to", f"parquet:{folder / f'{name}-rows'}", "--job", str(folder / f"{name}-job")]
    return ["videos", str(folder / "videos"), *own, "--workers", "2", "--batch-size", "8", "--embedder", "gist:32"]


def _done(folder: Path) -> int:
    job = folder / "killed-job"
    return read_status(job).counts.written if (job / "job.json").is_file() else 0
