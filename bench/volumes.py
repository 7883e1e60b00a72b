"""``volumes``: the two lanes of a volume worker, and a job over three volumes that is killed again and again."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from PIL import Image

from ..engine import Gathered, Lane
from ..engine.config.volumes import PipelineConfig
from ..engine.jobs.volumes import DecodedFrame, GpuBatcher, ImageTask, PageLook, S3Context, VolumeWorker
from ..engine.jobs.volumes.batcher import FIRST, REPROCESS
from ..engine.jobs.volumes.pages import Patch, PatchResult
from ..preprocess.pages.patches import PATCH
from .harness import Options
from .job_process import run_to_end, start_job
from .page_renderer import Layout, draw, scanned, turn
from .result import Goal, Result, Table, tabulate
from .volume_parts import Around, Undecoded

_PAGES: Final = 600
_KILLS: Final = 10
_VOLUMES: Final = 3
_LAYOUT: Final = Layout(width=1000, height=1400, size=24)
_DRAWN: Final = 12
"""Different pages; each is in the volumes many times."""

_CROOKED: Final = 4
"""One of so many lies askew."""

_BATCH: Final = 8
_DEADLINE: Final = 900.0
_START: Final = 1.0
"""Seconds that a process has at least before it is killed."""


def run(options: Options) -> Result:
    """``--n`` pages in three volumes; ``--rounds`` is the seed of the moments at which the job is killed.

    Raises:
        WorkerDiedError: a run failed by itself.
    """
    count, seed = options.n or _PAGES, options.rounds or 1
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        return Result("volumes", (*_lanes(Path(name), min(100 * count, 800)), *_whole(Path(name), count, seed)))


# -- lanes ------------------------------------------------------------------------------------------------------------


class _Watched(GpuBatcher):
    """Keeps the lane and the size of each batch, and how long the patches of a page were under way."""

    def __init__(self, cfg: PipelineConfig) -> None:
        super().__init__(cfg, lambda patches: patches[:, 0, 0].copy())
        self.batches: list[tuple[str, int]] = []
        self.seconds: dict[str, list[float]] = {FIRST: [], REPROCESS: []}
        self._cut: dict[tuple[int, int], float] = {}

    def cut(self, frame: DecodedFrame) -> list[Lane]:
        self._cut[frame.task.page, frame.passes] = time.perf_counter()
        return super().cut(frame)

    def run(self, patches: list[Patch]) -> list[PatchResult]:
        self.batches.append((REPROCESS if patches[0].frame.passes else FIRST, len(patches)))
        return super().run(patches)

    def gathered(self, page: Gathered) -> PageLook:
        frame: DecodedFrame = page.value
        began = self._cut.pop((frame.task.page, frame.passes))
        self.seconds[REPROCESS if frame.passes else FIRST].append(time.perf_counter() - began)
        return super().gathered(page)


def _lanes(folder: Path, patches: int) -> tuple[Table, ...]:
    (folder / "page").write_bytes(b"any")
    settings: dict[str, Any] = {"s3_bucket": str(folder), "batch_size": _BATCH, "embedder": "gist:32"}
    cfg = PipelineConfig(**settings, open_pages=2, batch_timeout=60.0)
    full = _driven(cfg, Undecoded(lambda task: (patches * PATCH, int(task.page == 0))), 2, 0)
    lanes = [lane for lane, _ in full.batches]
    both = lanes[lanes.index(FIRST) : len(lanes) - lanes[::-1].index(REPROCESS)]
    share = Counter(both)
    turns = [number for number, lane in enumerate(both) if lane == FIRST]
    waits = [after - before - 1 for before, after in pairwise(turns)] or [1]
    mixed = _driven(PipelineConfig(**settings), Undecoded(lambda _: (8 * PATCH, 0)), max(8, patches // 8), 1)
    filled = [size for _, size in mixed.batches]
    latency = {f"{lane}, p99": [1e3 * _p99(seconds)] for lane, seconds in mixed.seconds.items()}
    return (
        tabulate(
            "Batches of straightened pages for each one of first looks, while both lanes are full",
            "",
            {"share": [share[REPROCESS] / max(1, share[FIRST])]},
            goals=[Goal("share", 2.85), Goal("share", 3.15, at_most=True)],
        ),
        tabulate(
            "Batches of others that one of first looks waits for, at most",
            "",
            {"turns": [float(max(1, *waits))]},
            goals=[Goal("turns", 4.0, at_most=True)],
        ),
        tabulate(
            f"Patches in a batch of {_BATCH}, pages of 8 patches that go round once: mean",
            "",
            {"filled": [sum(filled) / len(filled)]},
        ),
        tabulate(
            "From a page's patches to the page, the same pages",
            "ms",
            latency,
            baseline=f"{FIRST}, p99",
            goals=[Goal(f"{REPROCESS}, p99", 1.0, f"{FIRST}, p99", at_most=True)],
        ),
    )


def _driven(cfg: PipelineConfig, decoder: Undecoded, pages: int, rounds: int) -> _Watched:
    batcher = _Watched(cfg)
    tasks = [ImageTask("page", page=number) for number in range(pages)]
    parts: dict[str, Any] = {"decoder": decoder, "batcher": batcher, "transform": Around(lambda _: rounds)}
    VolumeWorker(cfg, S3Context(cfg), "bench", tasks, **parts).run_sync()
    return batcher


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[-1] if len(values) > 1 else values[0]


# -- a whole job ------------------------------------------------------------------------------------------------------


def _whole(folder: Path, count: int, seed: int) -> tuple[Table, ...]:
    _draw(folder / "scans", count)
    seconds = run_to_end(_line(folder, "undisturbed"), _DEADLINE)
    kills, moments = min(_KILLS, max(1, count // 8)), random.Random(seed)
    for _ in range(kills):
        with start_job(_line(folder, "killed")) as process:
            try:
                process.wait(_START + moments.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                process.kill()
    run_to_end(_line(folder, "killed"), _DEADLINE)
    same = [_digest(folder, "killed", volume) == _digest(folder, "undisturbed", volume) for volume in _names()]
    report = json.loads((folder / "undisturbed-job" / "report.json").read_text())
    memory = {"memory": report["memory"]["peak"], "ceiling": report["extra"]["memory_ceiling"]["bytes"]}
    title = f"{count} pages in {_VOLUMES} volumes, 1000 x 1400, one of {_CROOKED} askew"
    return (
        tabulate(f"{title}", "pages/s", {"undisturbed": [count / seconds]}),
        tabulate(
            f"{title}, {kills} SIGKILLs at random moments (seed {seed}): volumes published once, as undisturbed",
            "%",
            {"killed": [100.0 * sum(same) / len(same)]},
            goals=[Goal("killed", 100.0)],
        ),
        tabulate(
            f"{title}: memory at its peak, and what was printed before",
            "MiB",
            {name: [nbytes / 2**20] for name, nbytes in memory.items()},
            baseline="ceiling",
            goals=[Goal("memory", 1.0, "ceiling", at_most=True)],
        ),
    )


def _names() -> list[str]:
    return [f"vol_{number}" for number in range(_VOLUMES)]


def _draw(folder: Path, count: int) -> None:
    """Pages of text as a scanner leaves them."""
    drawn = [draw(_LAYOUT, number)[0] for number in range(min(_DRAWN, count))]
    pages = [
        scanned(turn(page, 2.5 - number) if number % _CROOKED == 0 else page, number)
        for number, page in enumerate(drawn)
    ]
    for name in _names():
        (folder / name).mkdir(parents=True)
    for number in range(count):
        path = folder / _names()[number % _VOLUMES] / f"page-{number:04}.jpg"
        Image.fromarray(pages[number % len(pages)]).save(path, quality=85)


def _line(folder: Path, name: str) -> list[str]:
    own = ["--to", f"parquet:{folder / name}", "--job", str(folder / f"{name}-job")]
    return ["volumes", str(folder / "scans" / "vol_*"), *own, "--insert-batch-size", "8"]


def _digest(folder: Path, name: str, volume: str) -> str:
    """Of the rows that a volume has published."""
    from pyarrow import parquet as pq

    place = folder / name / volume
    digest = hashlib.sha256()
    for part in json.loads((place / "_SUCCESS.json").read_text())["parts"]:
        digest.update(json.dumps(pq.read_table(place / part["name"]).to_pylist()).encode())
    return digest.hexdigest()
