"""One worker process as the hub sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import gevent
import pytest

from penstock.engine.workers import process
from penstock.engine.workers.process import WorkerProcess
from penstock.shm.child import STATUS, Child, readable
from penstock.tests.waiting import DEADLINE


@pytest.mark.kills
def test_the_hub_goes_on_while_the_fork_server_has_yet_to_say_how_a_worker_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fork server that is slow, or stopped, holds up one worker's replacement, not every stage."""
    monkeypatch.setattr(process, "_STATUS_TIMEOUT", DEADLINE)
    said, says = os.pipe()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as dying:
        worker = WorkerProcess(0, "no:entry", b"")
        ours, theirs = socket.socketpair()
        with theirs, Child(dying.pid, ours, os.pidfd_open(dying.pid), said) as child:
            worker._child = child  # pyright: ignore[reportPrivateUsage]
            ending = gevent.spawn(worker.reap)
            with gevent.Timeout(DEADLINE):
                while not readable(child.pidfd, 0.0):
                    gevent.sleep(0.001)
            gevent.sleep(0.01)  # by now it waits for the word
            os.write(says, STATUS.pack(-signal.SIGKILL))
            assert ending.get(timeout=DEADLINE) == "was killed by signal 9 (SIGKILL)"
    os.close(says)
