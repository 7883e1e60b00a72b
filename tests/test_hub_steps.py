"""Steps that any thread hands in and one at a time does: none is lost, whenever the hub comes and goes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import gevent
import pytest

from penstock.engine.workers.hub_steps import HubSteps
from penstock.errors import ConfigError
from penstock.tests.threads import elsewhere
from penstock.tests.waiting import DEADLINE


@pytest.fixture
def hub() -> Iterator[HubSteps]:
    """Steps of this thread's hub."""
    steps = HubSteps()
    steps.open()
    yield steps
    steps.close()


def test_the_hub_does_them_in_its_own_thread(hub: HubSteps) -> None:
    """At once for itself, when it comes to it for others."""
    done: list[int] = []
    hub.run(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]
    elsewhere(lambda: hub.run(lambda: done.append(threading.get_ident())))
    assert len(done) == 1
    with gevent.Timeout(DEADLINE):
        while len(done) == 1:
            gevent.sleep(0.001)
    assert done == [threading.get_ident()] * 2


def test_what_comes_while_the_hub_goes_down_is_done(hub: HubSteps) -> None:
    """The hub has been woken, and is never to run again."""
    done: list[bool] = []
    elsewhere(lambda: hub.run(lambda: done.append(True)))
    hub.close()
    assert done


def test_where_there_is_no_hub_whoever_brings_a_step_does_it() -> None:
    """Before the first one, and after the last."""
    steps, done = HubSteps(), list[bool]()
    elsewhere(lambda: steps.run(lambda: done.append(True)))
    steps.open()
    steps.close()
    elsewhere(lambda: steps.run(lambda: done.append(True)))
    assert done == [True, True]


def test_a_second_hub_is_refused(hub: HubSteps) -> None:
    """It hears why, and the first goes on."""
    with pytest.raises(ConfigError, match="serves another pipeline"):
        elsewhere(hub.open)
    done: list[bool] = []
    hub.run(lambda: done.append(True))
    assert done


def test_none_is_lost_and_no_two_run_at_once_while_hubs_come_and_go() -> None:
    """Two threads hand steps in as fast as they can, and switch threads as often as can be."""
    steps, stop = HubSteps(), threading.Event()
    handed = [0, 0]
    count = inside = 0
    clashes: list[int] = []

    def step() -> None:
        nonlocal count, inside
        inside += 1
        if inside != 1:
            clashes.append(inside)
        count += 1
        inside -= 1

    def hand_in(which: int) -> None:
        while not stop.is_set():
            steps.run(step)
            handed[which] += 1

    def hubs() -> None:
        for _ in range(100):
            steps.open()
            gevent.sleep(0)
            steps.close()
        gevent.get_hub().destroy(destroy_loop=True)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=hand_in, args=(which,)) for which in range(2)]
    try:
        for thread in threads:
            thread.start()
        elsewhere(hubs)
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE)
        sys.setswitchinterval(interval)
    assert not clashes
    assert all(handed)
    assert count == sum(handed)
