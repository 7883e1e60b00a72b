"""The children of the fork server: how they start, talk and end. The server itself: ``test_shm_fork_server``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from penstock.errors import WorkerStartError
from penstock.preprocess.slot_layout import pixel_layout
from penstock.shm import Ring, Zygote, recv_frame, send_frame_fds
from penstock.tests.children import hear, say
from penstock.tests.waiting import DEADLINE, wait_until


def test_a_child_answers(zygote: Zygote) -> None:
    """It has its argument, hears frames, and its pid is its own."""
    with zygote.fork("shm_entries:echo", b"you said ") as child:
        assert say(child, b"hello") == b"you said hello"
        assert child.alive
        assert psutil.Process(child.pid).ppid() == zygote.pid
    assert not child.alive


def test_a_child_is_a_process_of_its_own(zygote: Zygote, entries: str) -> None:
    """Signals, stdin, environment, sys.path, preloaded modules, and no descriptor of anybody else's."""
    read, write = os.pipe()
    with zygote.fork("shm_entries:echo"), zygote.fork("shm_entries:look", b"", [write]) as child:
        state = json.loads(hear(child))
    os.close(read)
    os.close(write)
    assert state["fds"] == [0, 1, 2, *state["own"]]
    assert state["stdin"] == "/dev/null"
    assert state["sigint"]
    assert state["sigterm"]
    assert state["blocked"] == 0
    assert state["color"] == "red"
    assert state["path"] == [entry or str(Path.cwd()) for entry in sys.path]
    assert state["path"][0] == entries
    assert {"wave", "penstock.shm"} <= set(state["modules"])
    assert state["session"] != os.getsid(0)


def test_descriptors_are_handed_over(zygote: Zygote) -> None:
    """The child writes into a pipe of ours and we keep our end."""
    read, write = os.pipe()
    with zygote.fork("shm_entries:write", b"through the pipe", [write]) as child:
        os.close(write)
        assert child.wait(DEADLINE) == 0
    assert os.read(read, 99) == b"through the pipe"
    os.close(read)


def test_a_running_child_is_given_a_ring(zygote: Zygote, tmp_path: Path) -> None:
    """The descriptor comes with a frame; unlinking the name before that does not matter."""
    layout = pixel_layout(4, (3, 8, 8), "uint8", 2)
    with (
        Ring.create(layout, 2, directory=str(tmp_path)) as ring,
        zygote.fork("shm_entries:fill", json.dumps(layout.to_json()).encode()) as child,
    ):
        ring.unlink()
        send_frame_fds(child.socket, b"2", [ring.fd])
        assert hear(child) == b"done"
        ring.check(0, 1, 4)
        assert (ring.view(0)["pixels"] == 7).all()


@pytest.mark.kills
@pytest.mark.parametrize(
    ("way", "story"),
    [
        ("return", "exited with status 0"),
        ("raise", "exited with status 1"),
        ("exit 0", "exited with status 0"),
        ("exit 3", "exited with status 3"),
        ("exit text", "exited with status 1"),
        ("system error", "exited with status 1"),
        ("_exit", "exited with status 7"),
        ("memory", "exited with status 1"),
        ("segfault", "was killed by signal 11 (SIGSEGV)"),
        ("abort", "was killed by signal 6 (SIGABRT)"),
        ("term", "was killed by signal 15 (SIGTERM)"),
        ("kill", "was killed by signal 9 (SIGKILL)"),
    ],
)
def test_every_death_is_an_end_of_file_and_a_sentence(zygote: Zygote, way: str, story: str) -> None:
    """However a child dies, its socket ends, its pidfd says so, and its status is told; others live on."""
    with zygote.fork("shm_entries:die", way.encode()) as child:
        child.socket.settimeout(10)
        assert recv_frame(child.socket) is None
        assert child.describe_exit(10) == story
        assert child.describe_exit() == story
        assert not child.alive
        child.kill()
    assert child.describe_exit() == story, "known after it was closed, too"


@pytest.mark.kills
def test_a_killed_child_is_seen_at_once(zygote: Zygote) -> None:
    """SIGKILL from us ends in the middle of whatever it did."""
    with zygote.fork("shm_entries:stay") as child:
        assert hear(child) == b"here"
        assert child.describe_exit(0.01) == "is still running"
        child.kill()
        assert recv_frame(child.socket) is None
        assert child.describe_exit(10) == "was killed by signal 9 (SIGKILL)"


@pytest.mark.kills
def test_a_fork_server_that_is_slow_to_tell_is_not_called_dead(zygote: Zygote) -> None:
    """On a busy machine; here it is stopped meanwhile."""
    with zygote.fork("shm_entries:stay") as child:
        assert hear(child) == b"here"
        os.kill(zygote.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: psutil.Process(zygote.pid).status() == psutil.STATUS_STOPPED)
            child.kill()
            assert recv_frame(child.socket) is None
            wait_until(lambda: not child.alive)
            assert child.describe_exit(0.0) == "ended, its fork server has not said how"
        finally:
            os.kill(zygote.pid, signal.SIGCONT)
        assert child.describe_exit(10) == "was killed by signal 9 (SIGKILL)"


def test_an_interrupt_does_not_end_a_child(zygote: Zygote) -> None:
    """Ctrl-C is the parent's business: it drains its workers first."""
    with zygote.fork("shm_entries:echo") as child:
        os.kill(child.pid, signal.SIGINT)
        os.kill(zygote.pid, signal.SIGINT)
        assert say(child, b"still here") == b"still here"


def test_a_traceback_reaches_the_users_stderr(entries: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Of an exception and of a crash; a child that is hung up on while it talks leaves quietly."""
    with Zygote() as zygote:
        for way in (b"raise", b"segfault"):
            with zygote.fork("shm_entries:die", way) as child:
                child.describe_exit(10)
        errors = capfd.readouterr().err
        assert "IndexError" in errors
        assert "Segmentation fault" in errors
        with zygote.fork("shm_entries:push") as child:
            hear(child)
            child.socket.close()
            assert child.describe_exit(10) == "exited with status 0"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("shm_missing:main", "No module named 'shm_missing'"),
        ("shm_entries:missing", "has no attribute 'missing'"),
        ("shm_entries:ENTRIES_ARE_CODE", "has no attribute"),
        ("os:environ", "is not a function"),
        ("shm_exits:main", "SystemExit"),
    ],
)
def test_an_entry_point_that_is_not_there_is_an_error(zygote: Zygote, entries: str, entry: str, says: str) -> None:
    """With the reason, and the fork server goes on."""
    Path(entries, "shm_exits.py").write_text("raise SystemExit(3)")
    with pytest.raises(WorkerStartError, match=says):
        zygote.fork(entry)
    with zygote.fork("shm_entries:echo") as child:
        assert say(child, b"fine") == b"fine"


def test_threads_may_fork_at_once(zygote: Zygote) -> None:
    """Each gets a child of its own."""
    gate = threading.Barrier(4)

    def one(number: int) -> tuple[int, bytes | None]:
        gate.wait(DEADLINE)
        with zygote.fork("shm_entries:echo", b"%d" % number) as child:
            return child.pid, say(child)

    with ThreadPoolExecutor(4) as threads:
        pids, answers = zip(*threads.map(one, range(4)), strict=True)
    assert len(set(pids)) == 4
    assert answers == (b"0", b"1", b"2", b"3")


def test_a_hundred_children_leave_nothing_behind(entries: str) -> None:
    """No descriptor here or in the fork server, no zombie."""
    with Zygote() as zygote:

        def cycle() -> None:
            with zygote.fork("shm_entries:die", b"return") as child:
                assert child.wait(DEADLINE) == 0

        def descriptors() -> tuple[int, int]:
            with pytest.raises(WorkerStartError):
                zygote.fork("shm_missing:main")  # answered when the server has tidied up after the last child
            return psutil.Process().num_fds(), psutil.Process(zygote.pid).num_fds()

        cycle()
        before = descriptors()
        for _ in range(100):
            cycle()
        assert descriptors() == before
        assert psutil.Process(zygote.pid).children() == []


def test_a_long_argument_arrives(zygote: Zygote) -> None:
    """Longer than any socket buffer."""
    argument = os.urandom(1 << 20)
    with zygote.fork("shm_entries:echo", argument) as child:
        assert say(child) == argument
