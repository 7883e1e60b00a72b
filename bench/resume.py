"""``resume``: a job that is killed at random moments and resumed each time, against one that nobody disturbs."""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ..engine.journal import read_status
from ..sinks import MilvusSink, row_key
from .harness import Options
from .job_process import run_to_end, start_job
from .result import Goal, Result, tabulate

_KILLS = 20
_WORKERS, _SLOTS, _BATCH, _GROUP, _CALLS = 2, 3, 32, 128, 8
_HELD = (_WORKERS * _SLOTS + 2 + 1) * _BATCH + (2 + _CALLS + 4) * _GROUP
"""Pictures that slots, channels and calls can hold at once with these settings, the handover at the end included."""

_ROWS = 500
_DEADLINE = 300.0


def run(options: Options) -> Result:
    """Kill one job again and again, and compare what it leaves.

    Raises:
        WorkerDiedError: a run failed by itself.
    """
    count = options.n or 20_000
    seed = options.rounds or 1
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        pictures = _draw(folder / "pictures", count)
        seconds = run_to_end(_line(folder, "undisturbed"), _DEADLINE)
        kills = min(_KILLS, max(1, count // 100))
        redone = _disturbed(folder, "killed", count, kills, random.Random(seed))
        keys = [row_key(str(path)) for path in pictures]
        right, rows = _compared(_rows(folder / "undisturbed.db", keys), _rows(folder / "killed.db", keys), keys)
        counted = _count(folder / "killed.db")
    title = (
        f"{count:,} small pictures, {kills} SIGKILLs of the parent at random moments (seed {seed}), resumed each time"
    )
    tables = (
        tabulate(f"{title}: rows as in an undisturbed run", "%", {"killed": [right]}, goals=[Goal("killed", 100.0)]),
        tabulate(f"{title}: rows in the store", "rows", {"killed": [counted], "undisturbed": [rows]}),
        tabulate(
            f"{title}: most rows in the store at a kill that the books did not know, plus one",
            "rows",
            {"killed": [max(redone) + 1]},
            goals=[Goal("killed", _HELD + 1, at_most=True)],
        ),
        tabulate(f"{title}: the undisturbed run", "s", {"undisturbed": [seconds]}),
    )
    return Result("resume", tables, {}, (f"slots, channels and calls can hold {_HELD:,} pictures",))


def _draw(folder: Path, count: int) -> list[Path]:
    """Pictures of noise, each another."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    paths = [folder / f"{number:06}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(noise.integers(0, 256, (24, 24, 3), np.uint8)).save(path, compress_level=1)
    return paths


def _line(folder: Path, name: str) -> list[str]:
    own = ["--to", str(folder / f"{name}.db"), "--job", str(folder / f"{name}-job")]
    settings = ["--workers", str(_WORKERS), "--slots", str(_SLOTS), "--batch-size", str(_BATCH)]
    return ["embed", str(folder / "pictures"), *own, *settings, "--embedder", "gist:32"]


def _disturbed(folder: Path, name: str, count: int, kills: int, draw: random.Random) -> list[int]:
    """Run to the end, through so many kills; returns how many rows each kill left that the books did not know."""
    unknown: list[int] = []
    for moment in sorted(draw.randrange(count) for _ in range(kills)):
        with start_job(_line(folder, name)) as process:
            deadline = time.monotonic() + _DEADLINE
            while process.poll() is None and _written(folder, name) < moment and time.monotonic() < deadline:
                time.sleep(draw.random() * 0.02)
            process.kill()
        unknown.append(_count(folder / f"{name}.db") - _written(folder, name))
    run_to_end(_line(folder, name), _DEADLINE)
    return unknown


def _written(folder: Path, name: str) -> int:
    job = folder / f"{name}-job"
    return read_status(job).counts.written if (job / "job.json").is_file() else 0


def _count(store: Path) -> int:
    if not store.exists():
        return 0
    with MilvusSink(str(store), "images", 512) as sink:
        return sink.count()


def _rows(store: Path, keys: list[str]) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    with MilvusSink(str(store), "images") as sink:
        for start in range(0, len(keys), _ROWS):
            some = sink.get(keys[start : start + _ROWS], vectors=True)
            found |= {key: hashlib.sha256(row["vector"].tobytes()).digest() for key, row in some.items()}
    return found


def _compared(true: Mapping[str, bytes], found: Mapping[str, bytes], keys: list[str]) -> tuple[float, int]:
    """Percent of the rows that are as they should be, and how many there should be."""
    same = sum(key in true and true[key] == found.get(key) for key in keys)
    return 100.0 * same / len(keys), len(true)
