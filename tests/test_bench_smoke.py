"""Each benchmark runs, in a tiny form: figures for every variant that can run here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.bench.__main__ import BENCHMARKS
from penstock.tests.waiting import DEADLINE

VARIANTS = {
    "chain": {"pillow+numpy", "penstock"},
    "gist": {"gist:32", "gist", "gist:128"},
    "frames": {"statistics of 224 x 224", "PDQ and quality of 64 x 64", "suppression among 300 boxes", "bars found"},
    "stream": {"penstock"},
    "engine": {"bare workers", "engine"},
    "scaling": {"1 worker", "2 workers"},
    "calls": {"WorkerPool", "ProcessPoolExecutor"},
    "faces": {"insert_images", "insert_images_async", "insert_images_streaming"},
    "sandbox": {"free", "sandbox"},
    "startup": {"new process, empty cache", "new process, warm cache", "warm pool", "first batch", "penstock search"},
    "memory": {"few", "many"},
    "resume": {"killed", "undisturbed"},
    "recovery": {"each", "p99", "before", "after", "start"},
    "soak": {"after a tenth", "at the end", "threads, first tenth", "threads, last tenth", "whole", "ceiling"},
    "journal": {"as appended", "compacted", "journal", "snapshot"},
    "paths": {"folder", "list", "list of other names", "@list", "generator"},
    "pages": {"first pass", "resample, pillow", "straight pages left alone"},
    "volumes": {
        "share",
        "turns",
        "filled",
        "first, p99",
        "reprocess, p99",
        "killed",
        "undisturbed",
        "memory",
        "ceiling",
    },
    "dedup": {"default", "strict", "all pairs", "buckets"},
    "videos": {"sampler alone", "mined", "1 worker", "2 workers", "killed"},
    "video_frames": {"penstock", "bare loop", "keyframes, keyframe every 5 s"},
    "tee": {"Milvus Lite", "bulk", "both"},
    "packed": {"loose files", "tar"},
    "object_store": {"local files"},
    "triton": {"HTTP bodies", "shared memory", "in turn", "penstock", "penstock, hub watched"},
    "milvus": {"insert stage"},
}
"""Those that need no extra."""

LONG = {
    "chain",
    "dedup",
    "faces",
    "frames",
    "gist",
    "memory",
    "milvus",
    "object_store",
    "packed",
    "pages",
    "paths",
    "recovery",
    "resume",
    "sandbox",
    "scaling",
    "soak",
    "startup",
    "stream",
    "tee",
    "triton",
    "video_frames",
    "videos",
    "volumes",
}
"""Those that take over ten seconds in their tiniest form, on two cores: run at night."""


def test_every_benchmark_is_smoke_tested() -> None:
    """A new one cannot be forgotten here."""
    assert set(VARIANTS) == set(BENCHMARKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] if name in LONG else []) for name in BENCHMARKS]
)
def test_a_benchmark_runs_in_a_tiny_form(name: str, tmp_path: Path) -> None:
    """As users run it: exit status 0, a table, positive figures in the JSON."""
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "penstock.bench", name, "--n", "8", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--data", str(tmp_path / "data"), "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(file.read_text())
    seen: set[str] = set()
    for table in result["tables"]:
        rows = {row["name"]: row["values"] for row in table["rows"]}
        assert all(value > 0 for values in rows.values() for value in values)
        seen |= set(rows)
    assert seen | set(result["skipped"]) >= VARIANTS[name]
    assert f"penstock.bench {name}" in done.stdout
