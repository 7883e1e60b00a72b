"""A volume worker under the user's own asyncio loop: cancelled, sharing a semaphore, run once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import ConfigError, PipelineFailure
from penstock.bench.volume_parts import Around
from penstock.engine.jobs.volumes.turns import Waiting
from penstock.tests.scans import WatchedBatcher, cancel_in_a_batch, config, in_a_batch, tasks_in, worker, write_pages
from penstock.tests.threads import our_threads
from penstock.tests.waiting import DEADLINE, wait_until
from penstock.volumes import ImageTask, PipelineConfig, S3Context, VolumeWorker


class Most:
    """How many reads were under way at once, at most. None ends before so many have come to ask for a turn.

    Args:
        readers: that many: without turns they would all read at once.
    """

    def __init__(self, readers: int) -> None:
        self.seen = self._now = self._came = 0
        self._readers, self._all_came = readers, threading.Event()
        self._lock = threading.Lock()

    def come(self) -> None:
        """A reader is about to ask for its turn."""
        with self._lock:
            self._came += 1
            if self._came == self._readers:
                self._all_came.set()

    @contextmanager
    def read(self) -> Generator[None]:
        """A reader has its turn."""
        with self._lock:
            self._now += 1
            self.seen = max(self.seen, self._now)
        assert self._all_came.wait(DEADLINE)
        yield
        with self._lock:
            self._now -= 1


class Watched(S3Context):
    """Counts its reads that are under way at once, together with those of others that have the same `most`."""

    def __init__(self, cfg: PipelineConfig, turns: asyncio.Semaphore | threading.Semaphore, most: Most) -> None:
        super().__init__(cfg, turns)
        self._most = most

    @contextmanager
    def turn(self, loop: asyncio.AbstractEventLoop | None, waiting: Waiting) -> Generator[None]:
        self._most.come()
        with super().turn(loop, waiting):
            yield

    def read(self, task: ImageTask) -> bytes:
        with self._most.read():
            return super().read(task)


def quick(tmp_path: Path, pages: int = 4, **settings: Any) -> tuple[VolumeWorker, WatchedBatcher]:
    """A worker over small pages, whose batches are watched."""
    if not (tmp_path / "vol").exists():
        write_pages(tmp_path / "vol", {f"{number}.png": np.full((20, 20), 9, np.uint8) for number in range(pages)})
    cfg = config(tmp_path, **settings)
    watched = WatchedBatcher(cfg)
    return worker(tmp_path, cfg, batcher=watched, transform=Around(lambda _: 0)), watched


def test_it_runs_under_the_users_own_loop(tmp_path: Path) -> None:
    """The loop goes on meanwhile."""
    done, watched = quick(tmp_path)

    async def main() -> None:
        async with in_a_batch(done, watched) as running:
            assert not running.done()
            watched.may_run.set()
            report = await running
            assert report is done.report

    asyncio.run(main())
    assert len(done.records) == 4
    assert done.records.published() == {"rows": 4, "pages": 4, "dead": 0}


def test_cancelling_it_stops_everything_and_publishes_nothing(tmp_path: Path) -> None:
    """In the middle of a batch; no thread remains."""
    before = our_threads()
    done, watched = quick(tmp_path)
    asyncio.run(cancel_in_a_batch(done, watched))
    assert done.records.published() is None
    assert watched.closed
    assert our_threads() == before


def test_volumes_that_share_a_semaphore_share_its_turns(tmp_path: Path) -> None:
    """An asyncio one of the user's loop: both workers together never read more at once, and the user has turns, too."""
    write_pages(tmp_path / "vol", {f"{number}.png": np.full((20, 20), 9, np.uint8) for number in range(12)})
    cfg, most = config(tmp_path, s3_max_inflight=8), Most(2 * 8)

    async def main() -> None:
        semaphore = asyncio.Semaphore(3)
        parts = [{"transform": Around(lambda _: 0), "batcher": WatchedBatcher(cfg)} for _ in range(2)]
        workers = [
            VolumeWorker(cfg, Watched(cfg, semaphore, most), "vol", tasks_in(tmp_path, "vol"), **part)  # type: ignore[arg-type]
            for part in parts
        ]
        async with asyncio.timeout(DEADLINE), semaphore:  # one turn is the user's
            await asyncio.gather(*(each.run() for each in workers))
        assert [len(each.records) for each in workers] == [12, 12]
        async with asyncio.timeout(DEADLINE):  # every turn has been given back
            for _ in range(3):
                await semaphore.acquire()

    asyncio.run(main())
    assert 1 <= most.seen <= 2


def test_a_semaphore_for_threads_is_shared_likewise(tmp_path: Path) -> None:
    """Without asyncio."""
    quick(tmp_path)
    cfg, most = config(tmp_path, s3_max_inflight=8), Most(4)
    s3 = Watched(cfg, threading.Semaphore(1), most)
    parts: dict[str, Any] = {"transform": Around(lambda _: 0), "batcher": WatchedBatcher(cfg)}
    done = VolumeWorker(cfg, s3, "vol", tasks_in(tmp_path, "vol"), **parts)
    done.run_sync()
    assert len(done.records) == 4
    assert most.seen == 1


def test_cancelling_it_while_it_waits_for_a_turn_ends_it(tmp_path: Path) -> None:
    """Somebody else has the only turn, and keeps it."""
    before = our_threads()
    cfg = config(tmp_path)
    quick(tmp_path)

    async def main() -> None:
        semaphore = asyncio.Semaphore(1)
        done = VolumeWorker(cfg, S3Context(cfg, semaphore), "vol", tasks_in(tmp_path, "vol"))
        async with asyncio.timeout(DEADLINE), semaphore:
            running = asyncio.create_task(done.run())
            await asyncio.to_thread(wait_until, lambda: getattr(semaphore, "_waiters", None), "a reader that waits")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        async with asyncio.timeout(DEADLINE):  # the turns that were given up were not taken
            await semaphore.acquire()

    asyncio.run(main())
    assert our_threads() == before


def test_cancelling_it_while_it_waits_for_a_turn_of_threads_ends_it(tmp_path: Path) -> None:
    """The same at a semaphore that no loop knows."""
    before = our_threads()
    cfg, only = config(tmp_path), threading.Semaphore(0)
    quick(tmp_path)

    async def main() -> None:
        done = VolumeWorker(cfg, S3Context(cfg, only), "vol", tasks_in(tmp_path, "vol"))
        async with asyncio.timeout(DEADLINE):
            running = asyncio.create_task(done.run())
            readers = lambda: [name for name in our_threads() if name.startswith("penstock-read")]  # noqa: E731
            await asyncio.to_thread(wait_until, readers, "a reader")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(main())
    assert our_threads() == before


def test_a_worker_runs_once(tmp_path: Path) -> None:
    """Another one is made in no time."""
    done, _ = quick(tmp_path)
    done.run_sync()
    with pytest.raises(RuntimeError, match="has run already"):
        done.run_sync()


def test_an_asyncio_semaphore_needs_a_loop(tmp_path: Path) -> None:
    """It is said which other one to give."""
    quick(tmp_path)
    cfg = config(tmp_path)
    done = VolumeWorker(cfg, S3Context(cfg, asyncio.Semaphore(1)), "vol", tasks_in(tmp_path, "vol"))
    with pytest.raises(PipelineFailure) as caught:
        done.run_sync()
    assert isinstance(caught.value.exceptions[0], ConfigError)
    assert "global_sem" in str(caught.value.exceptions[0])
