"""Where the pages of volumes are read from, and the cap on reads that all volumes of a process share."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from ....errors import ConfigError, ObjectStoreError, ReadError
from ....fetch import read_file
from ....object_stores import IN_FLIGHT, ObjectStores, StoreURL, as_read_error
from ...config.volumes import PipelineConfig
from ...sources.entries import path_of
from .pages import ImageTask
from .places import store_options
from .turns import AsyncTurn, Waiting

Semaphore = asyncio.Semaphore | threading.Semaphore

MOST_BYTES: Final = 512 * 2**20
"""Of a page's file, where the configuration says nothing."""


class S3Context:
    """The stores that tasks are in. Volume workers of a process may share one, or each have their own.

    Args:
        cfg: says the bucket, and how large a page may be.
        global_sem: taken for each read, by all who were given it: an asyncio one of the loop that workers run under, or
            one for threads. None: `s3_max_inflight_global` of `cfg` is the cap of this process.

    Raises:
        ConfigError: the bucket is no bucket, URL or folder.
    """

    def __init__(self, cfg: PipelineConfig, global_sem: Semaphore | None = None) -> None:
        self._base = _base(cfg.s3_bucket)
        self._max_bytes = cfg.max_file_bytes or MOST_BYTES
        self._semaphore = global_sem
        self._stores = ObjectStores(store_options(cfg))
        if global_sem is None or "s3_max_inflight_global" in cfg.model_fields_set:
            IN_FLIGHT.limit(requests=cfg.s3_max_inflight_global)

    def where(self, key: str) -> str:
        """What a key of a task stands for: the URL of an object, or a path of this machine.

        Raises:
            ConfigError: there is no bucket, and it is neither a URL nor an absolute path.
        """
        key = path_of(key)  # of a file whose name is no text
        if self._base is not None:
            return f"{self._base.rstrip('/')}/{key}"
        if "://" in key:
            url = StoreURL.parse(key)
            return url.key if url.scheme == "file" else key
        if not key.startswith("/"):
            raise ConfigError(f"s3_bucket is missing: {key!r} is the key of a task, in which bucket?")
        return key

    def read(self, task: ImageTask) -> bytes:
        """The bytes of a page, as it was when it was listed.

        Raises:
            ReadError: it cannot be had, or another one is there.
            TooLargeError: it has more bytes than `max_file_bytes`.
            ConfigError: it is below no bucket, or there are no credentials.
        """
        where = self.where(task.key)
        if where.startswith("/"):
            return self._file(where, task)
        url = StoreURL.parse(where)
        size = -1 if task.size is None else task.size
        try:
            return self._stores.of(url).get(url.key, max_bytes=self._max_bytes, size=size, etag=task.etag or "")
        except ObjectStoreError as error:
            raise as_read_error(error) from error

    @contextmanager
    def turn(self, loop: asyncio.AbstractEventLoop | None, waiting: Waiting) -> Generator[None]:
        """Wait for a turn to read, and have it for the block. In a thread that is not the loop's.

        Args:
            loop: that an asyncio semaphore belongs to.
            waiting: ends the waiting early.

        Raises:
            ConfigError: there is an asyncio semaphore, and no loop.
            ReadError: the waiting was ended.
        """
        if isinstance(self._semaphore, asyncio.Semaphore):
            if loop is None:
                raise ConfigError(
                    "global_sem: an asyncio.Semaphore is for `await worker.run()`; run_sync needs another"
                )
            # By way of its loop: it is no semaphore for threads, and coroutines of the user's may share it, too.
            waiting.wait_for(AsyncTurn(self._semaphore, loop))
            try:
                yield
            finally:
                with suppress(RuntimeError):  # the loop has ended: nobody shares the semaphore any more
                    loop.call_soon_threadsafe(self._semaphore.release)
        elif self._semaphore is not None:
            waiting.acquire(self._semaphore)
            try:
                yield
            finally:
                self._semaphore.release()
        else:
            yield

    def _file(self, path: str, task: ImageTask) -> bytes:
        if task.etag is not None and (found := etag_of(path)) != task.etag:
            raise ReadError(f"{path!r} has changed since it was listed ({found or 'it is gone'} now)")
        data = read_file(path, self._max_bytes)
        if task.size is not None and task.size != len(data):
            raise ReadError(f"{path!r} has changed: {len(data)} bytes, and {task.size} were listed")
        return data


def etag_of(path: str) -> str:
    """What stands for the etag of a file of this machine: size and time of the last change. Empty: there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  (once for each page)
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


def _base(bucket: str | None) -> str | None:
    """What keys are below: a URL without a slash at the end, or an absolute path."""
    if bucket is None:
        return None
    if "://" in bucket:
        url = StoreURL.parse(bucket)
        return url.key if url.scheme == "file" else str(url)
    if "/" in bucket or bucket in (".", ".."):
        return os.path.abspath(os.path.expanduser(bucket))  # noqa: PTH100, PTH111
    return f"s3://{bucket}"
