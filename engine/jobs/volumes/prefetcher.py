"""The first stage of a volume worker: the bytes of pages, read ahead of the decoder."""

from __future__ import annotations

import asyncio

from .pages import FetchedPage, ImageTask
from .s3_context import S3Context
from .turns import Waiting


class Prefetcher:
    """Reads pages. Its `fetch` is called in as many threads as reads may be under way.

    Args:
        s3: where from.
    """

    def __init__(self, s3: S3Context) -> None:
        self._s3 = s3
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = Waiting()

    def open(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Before the first read: the loop that a shared asyncio semaphore belongs to, if there is one."""
        self._loop = loop

    def fetch(self, task: ImageTask) -> FetchedPage:
        """The bytes of a page.

        Raises:
            ItemError: it cannot be read, or is not what was listed.
        """
        with self._s3.turn(self._loop, self._waiting):
            return FetchedPage(task, self._s3.read(task))

    def close(self) -> None:
        """Let go of reads that wait for their turn. May be called twice."""
        self._waiting.close()
