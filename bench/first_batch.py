"""What ``startup`` measures of the first batch: from an interpreter that starts down to a pool that is running.

Imports nothing that penstock does not: the start of a process is measured with all that it imports.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from .child import Measure, Measures
from .harness import SPAWNED
from .workload import BATCH, WORKERS, pixels

if TYPE_CHECKING:
    from ..engine.jobs.images.preprocess_stream import StreamingMultiprocessPreprocessor

STEPS = ("workers are asked for", "workers are there", "first batch")
"""Of a new process, each with the seconds until then."""


@contextmanager
def new_process(paths: Sequence[str], cache: str | None) -> Generator[Measure, None, None]:
    """Everything from the interpreter's start on; ``cache`` None is an empty compilation cache."""
    with ExitStack() as stack:
        use_cache(cache or stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-cache-")))

        def since() -> float:
            return time.monotonic() - float(os.environ[SPAWNED])

        def measure() -> Measures:
            stream = _preprocessor()
            asked = since()
            stack.enter_context(stream)
            there = since()
            next(stream.preprocess_stream(paths))
            seconds = since()
            return {"seconds": seconds, **dict(zip(STEPS, (asked, there, seconds), strict=True))}

        yield measure


@contextmanager
def new_pool(paths: Sequence[str], cache: str) -> Generator[Measure, None, None]:
    """Another pool in a process that keeps the fork server."""
    from ..engine.workers import warm_start

    use_cache(cache)

    def measure() -> Measures:
        start = time.monotonic()
        with _preprocessor() as stream:
            next(stream.preprocess_stream(paths))
            return {"seconds": time.monotonic() - start}

    with warm_start():
        yield measure


@contextmanager
def warm_pool(paths: Sequence[str], cache: str) -> Generator[Measure, None, None]:
    """Another stream from a pool that is running."""
    use_cache(cache)
    with _preprocessor() as stream:

        def measure() -> Measures:
            start = time.monotonic()
            batches = stream.preprocess_stream(paths)
            next(batches)
            seconds = time.monotonic() - start
            for _ in batches:  # leave the pool idle for the next round
                pass
            return {"seconds": seconds}

        yield measure


def use_cache(folder: str) -> None:
    """Keep compiled kernels there."""
    os.environ["XDG_CACHE_HOME"] = folder


def _preprocessor() -> StreamingMultiprocessPreprocessor:
    from ..engine.jobs.images.preprocess_stream import StreamingMultiprocessPreprocessor

    return StreamingMultiprocessPreprocessor(num_workers=WORKERS, batch_size=BATCH, spec=pixels("float32"))
