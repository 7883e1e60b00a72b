"""Hooks: code of your own around each task of a pipeline, here a trace file and statistics at intervals.

    python examples/task_hooks.py [--trace trace.json]

Makes thumbnails of the example photographs and of two files that are none. The trace can be looked at in
https://ui.perfetto.dev or chrome://tracing: a row for each stage, a bar for each photograph.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image

import penstock
from penstock.engine import StageInfo, TaskHook, TaskPerfStats, TaskStatsHook

PHOTOS = Path(__file__).parent / "photos"


class Trace(TaskHook):
    """Notes when each task begins and ends, and what it raises."""

    def __init__(self, info: StageInfo, events: list[dict[str, Any]]) -> None:
        self.info = info
        self.events = events

    @asynccontextmanager
    async def task_hook(self, input_item: Any = None) -> AsyncGenerator[None]:
        began, error = time.perf_counter(), ""
        try:
            yield
        except Exception as raised:
            error = repr(raised)
            raise
        finally:
            micros = 1e6 * (time.perf_counter() - began)
            event = {"ph": "X", "name": str(input_item), "ts": 1e6 * began, "dur": micros, "args": {"error": error}}
            self.events.append({**event, "pid": self.info.pipeline_id, "tid": self.info.stage_name})


class Print(TaskStatsHook):
    """Prints what a stage did since the last time."""

    async def interval_stats_callback(self, stats: TaskPerfStats) -> None:
        print(f"  {self.info.stage_name}: {stats.num_tasks} more, p90 {1e3 * stats.p90_time:.1f} ms")


def load(path: Path) -> Image.Image:
    """A decoded photograph."""
    with Image.open(path) as image:
        return image.convert("RGB")


def shrink(image: Image.Image) -> bytes:
    """Its thumbnail, as a JPEG."""
    image.thumbnail((96, 96))
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, help="write the trace there")
    options = parser.parse_args()
    events: list[dict[str, Any]] = []
    stats: list[Print] = []

    def hooks(info: StageInfo) -> list[TaskHook]:
        stats.append(Print(info, interval=0.1))
        return [Trace(info, events), stats[-1]]

    pipeline = (
        penstock.PipelineBuilder()
        .add_source(sorted(PHOTOS.iterdir()))
        .pipe(load, concurrency=2)
        .pipe(shrink)
        .add_sink()
        .build(num_threads=2, task_hook_factory=hooks)
    )
    with pipeline.auto_stop():
        thumbnails = list(pipeline)
    for hook in stats:
        print(f"{hook.info.stage_name}: {hook.num_tasks} tasks, {hook.num_failures} failed")
    failed = sorted(event["name"] for event in events if event["args"]["error"])
    print(f"{len(thumbnails)} thumbnails; not pictures: {', '.join(Path(name).name for name in failed)}")
    if options.trace:
        options.trace.write_text(json.dumps({"traceEvents": events}))


if __name__ == "__main__":
    main()
