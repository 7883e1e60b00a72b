"""A pipeline run to its end: for the tests of what comes out of it."""

from __future__ import annotations

from typing import Any

from penstock.engine import Pipeline, PipelineBuilder
from penstock.tests.waiting import DEADLINE


def run(builder: PipelineBuilder, num_threads: int = 2, **knobs: Any) -> tuple[list[Any], Pipeline]:
    """All its values; the books balance, and nothing is in flight."""
    pipeline = builder.add_sink().build(num_threads=num_threads, **knobs)
    with pipeline.auto_stop():
        items = list(pipeline.get_iterator(timeout=DEADLINE))
    pipeline.report().check(ended=True)
    return items, pipeline
