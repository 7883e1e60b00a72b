"""Doing small reads ahead in threads, where each of them takes long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")

_THREADS: Final = 16
_AHEAD: Final = 64
"""Calls under way, or waiting for those before them."""


def mapped_ahead(function: Callable[[ArgumentT], ResultT], arguments: Iterable[ArgumentT]) -> Generator[ResultT]:
    """As ``map``, in the order of the arguments, with some of the calls at once. What it holds is bounded by number.

    Args:
        function: called in threads; raises nothing.
        arguments: drawn in the thread of whoever iterates.
    """
    pool = ThreadPoolExecutor(_THREADS, "penstock-metadata")
    under_way: deque[Future[ResultT]] = deque()
    try:
        for argument in arguments:
            if len(under_way) == _AHEAD:
                yield under_way.popleft().result()
            under_way.append(pool.submit(function, argument))
            while under_way and under_way[0].done():
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
