"""Threads: one of a test's own, and those of a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from penstock.engine import Pipeline
from penstock.tests.waiting import DEADLINE

_T = TypeVar("_T")


def elsewhere(work: Callable[[], _T]) -> _T:
    """Do something in another thread, to its end; what it returns or raises."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result(DEADLINE)


def threads_of(pipeline: Pipeline) -> list[str]:
    """Names of the threads of a pipeline that run."""
    label = pipeline._runtime._thread.name  # pyright: ignore[reportPrivateUsage]
    return [
        thread.name for thread in threading.enumerate() if thread.name == label or thread.name.startswith(f"{label}-")
    ]


def our_threads() -> list[str]:
    """Names of the threads that penstock has started in this process, in order."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("penstock"))
