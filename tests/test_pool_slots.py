"""Slots come back whoever gives them up, and then somebody who waits gets them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import gevent
import pytest

from penstock.engine.workers import PreprocessPool, pictures
from penstock.engine.workers.pool_worker import PoolWorker
from penstock.errors import ConfigError
from penstock.preprocess import Source, preset
from penstock.preprocess.worker import protocol
from penstock.preprocess.worker.protocol import Done
from penstock.tests.slots import in_use
from penstock.tests.threads import elsewhere
from penstock.tests.waiting import DEADLINE

pytestmark = pytest.mark.slow


@pytest.fixture
def pool() -> Iterator[PreprocessPool]:
    """One worker with one slot, listened to by this thread's hub."""
    with PreprocessPool(preset("clip", size=32), workers=1, batch_size=2, slots=1) as made:
        made.start_in_hub()
        yield made
        made.stop_in_hub()


def test_a_caller_that_is_killed_while_its_answer_comes_leaves_its_slot_free(
    pool: PreprocessPool, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never sees the answer, so it cannot give the slot back; whoever waits gets it."""
    hear = PoolWorker._hear  # pyright: ignore[reportPrivateUsage]

    def killed_first(self: PoolWorker[Source, Done], frame: bytes) -> None:
        monkeypatch.undo()
        first.kill(block=False)
        hear(self, frame)

    monkeypatch.setattr(PoolWorker, "_hear", killed_first)
    first = gevent.spawn(pool.process, [str(photos[0])])
    second = gevent.spawn(pool.process, [str(photos[1])])
    with gevent.Timeout(DEADLINE):
        second.get().release()
    assert isinstance(first.value, gevent.GreenletExit)
    assert not in_use(pool)


def test_a_batch_that_cannot_be_sent_leaves_its_slot_to_who_waits(
    pool: PreprocessPool, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with one batch is no reason for another to wait for ever."""
    encode = protocol.encode_task

    def choosy(slot: int, generation: int, sources: Sequence[Source]) -> object:
        if sources == [b"too large"]:
            raise ValueError(sources)
        return encode(slot, generation, sources)

    monkeypatch.setattr(pictures, "encode_task", choosy)
    held = pool.process([str(photos[0])])
    refused = gevent.spawn(pool.process, [b"too large"])
    waiting = gevent.spawn(pool.process, [str(photos[1])])
    gevent.sleep(0)
    held.release()
    with gevent.Timeout(DEADLINE):
        waiting.get().release()
    assert isinstance(refused.exception, ValueError)


def test_a_batch_is_given_back_once_however_often_and_wherever_it_is_released(
    pool: PreprocessPool, photos: list[Path]
) -> None:
    """From another thread, and again: the next batch has the slot by then."""
    first = pool.process([str(photos[0])])
    elsewhere(first.release)
    second = pool.process([str(photos[1])])
    first.release()
    assert in_use(pool) == {"ready": 1}
    second.release()


def test_a_pool_that_serves_one_hub_refuses_another(pool: PreprocessPool, photos: list[Path]) -> None:
    """Two pipelines that share it by mistake: the second hears so, the first goes on."""
    with pytest.raises(ConfigError, match="serves another pipeline"):
        elsewhere(pool.start_in_hub)
    pool.process([str(photos[0])]).release()
