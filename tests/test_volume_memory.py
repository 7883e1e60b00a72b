"""Room for pages: who waits, who need not, and that what is taken is given back however a page ends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import ConfigError
from penstock.bench.volume_parts import Around
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.volumes.memory import Room, estimate_volumes, room_for_pages
from penstock.tests.scans import WatchedBatcher, config, worker
from penstock.tests.waiting import DEADLINE, wait_until
from penstock.volumes import DecodedFrame, ImageTask, PageLook, PipelineConfig, Record

MIB = 2**20
A, B, C = (ImageTask(name) for name in "abc")


def waiting(room: Room, task: ImageTask, nbytes: int) -> threading.Event:
    """Set when the page has its room; it does not have it yet."""
    has, before = threading.Event(), room.waiting

    def take() -> None:
        room.take(task, nbytes)
        has.set()

    threading.Thread(target=take, daemon=True).start()
    wait_until(lambda: room.waiting > before, "a page that waits")
    return has


def test_who_does_not_fit_waits_until_somebody_gives() -> None:
    """In bytes, not in pages."""
    room = Room(100)
    room.take(A, 60)
    room.take(B, 40)
    third = waiting(room, C, 50)
    room.give(B)
    assert room.waiting == 1
    room.give(A)
    assert third.wait(DEADLINE)
    assert (room.taken, room.waiting) == (50, 0)


def test_what_is_larger_than_all_of_it_goes_alone() -> None:
    """And the others after it."""
    room = Room(100)
    room.take(A, 10)
    large = waiting(room, B, 1000)
    room.give(A)
    assert large.wait(DEADLINE)
    small = waiting(room, C, 1)
    room.give(B)
    assert small.wait(DEADLINE)


def test_a_page_is_known_whatever_has_been_found_out_about_it() -> None:
    """What it takes may turn out otherwise; giving twice is no harm, and an end frees everybody."""
    room = Room(100)
    room.take(A, 0)
    room.resize(ImageTask("a", etag="e", size=7), 90)
    assert room.taken == 90
    last = waiting(room, B, 50)
    room.close()
    assert last.wait(DEADLINE)
    for _ in range(2):
        room.give(A)
    assert room.taken == 50


def small_room(**settings: Any) -> PipelineConfig:
    """With room for sixteen pages of a mebibyte, as scanned and straightened."""
    cfg = config(max_pixels=MIB, **settings)
    besides = estimate_volumes(cfg, make_plan(cfg)).total - room_for_pages(cfg, make_plan(cfg))
    return config(max_pixels=MIB, memory=besides + 32 * MIB, **settings)


class Counted:
    """A decoder and a controller that know how many pages are between them."""

    def __init__(self, fails: bool = False) -> None:
        self.most = self._now = 0
        self._fails = fails
        self._mutex = threading.Lock()
        self._around = Around(lambda task: task.page % 2)

    def decode(self, task: ImageTask, data: bytes) -> DecodedFrame:
        del data
        with self._mutex:
            self._now += 1
            self.most = max(self.most, self._now)
        return DecodedFrame(task, np.broadcast_to(np.uint8(9), (1024, 1024)))

    def inspect(self, page: PageLook) -> DecodedFrame | Record:
        found = self._around.inspect(page)
        if isinstance(found, Record):
            with self._mutex:
                self._now -= 1
            if self._fails:
                raise ValueError("not one of them")
        return found


@pytest.mark.parametrize("fails", [False, True])
def test_no_more_pages_are_decoded_than_there_is_room_for(tmp_path: Path, fails: bool) -> None:
    """Also where pages go round, and where all of them fail: their room comes back."""
    (tmp_path / "page").write_bytes(b"any")
    cfg = small_room(s3_bucket=str(tmp_path), open_pages=64, decode_threads=2, frame_queue_size=64, s3_max_inflight=4)
    counted = Counted(fails)
    tasks = [ImageTask("page", page=number) for number in range(80)]
    done = worker(tmp_path, cfg, tasks=tasks, decoder=counted, transform=counted, batcher=WatchedBatcher(cfg))
    report = done.run_sync()
    assert (report.accounting.written, report.accounting.dead) == ((0, 80) if fails else (80, 0))
    assert 8 <= counted.most <= 16 + cfg.decode_threads
    assert report.extra["memory_ceiling"]["bytes"] == cfg.memory


def test_too_little_memory_is_refused_with_what_is_needed() -> None:
    """And what makes it less."""
    with pytest.raises(ConfigError, match=r"memory: 300 MiB are too little: at least .*--max-pixels"):
        worker(Path("/nowhere"), config(memory="300MiB"), tasks=[]).run_sync()
