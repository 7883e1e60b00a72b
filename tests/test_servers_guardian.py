"""What servers stand on: cached environments, and the guardian that leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from penstock.engine.servers import ServerError, ServerUnavailableError, server_venv
from penstock.engine.servers import venvs as venvs_module
from penstock.engine.servers.guarded import Command, Guarded
from penstock.tests.waiting import DEADLINE, wait_until

ENVIRONMENT = {"PATH": os.environ["PATH"]}
SERVERS = Path(venvs_module.__file__).parent


def gone(pid: int) -> bool:
    """Whether a process is no more (a zombie is one that nobody has waited for)."""
    return not psutil.pid_exists(pid)


# -- environments --------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of servers of the test's own."""
    monkeypatch.setenv("PENSTOCK_SERVERS", str(tmp_path / "servers"))
    return tmp_path / "servers"


@pytest.mark.slow
def test_an_environment_is_made_once(cache: Path) -> None:
    """The second call finds what the first made; other requirements have another folder."""
    made: list[Path] = []
    first = server_venv("none", (), python=sys.executable, finish=made.append)
    assert server_venv("none", (), python=sys.executable, finish=made.append) == first
    assert made == [first]
    assert first.parent == cache
    assert subprocess.run([first / "bin" / "python", "-c", ""], check=False).returncode == 0


@pytest.mark.slow
def test_a_half_made_environment_is_made_anew(cache: Path) -> None:
    """Whoever was killed in the middle leaves a folder without the stamp: it counts for nothing."""

    def killed(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server_venv("none", (), python=sys.executable, finish=killed)
    (half,) = cache.glob("none-*/half")
    assert server_venv("none", (), python=sys.executable) == half.parent
    assert not half.exists()


def test_two_processes_do_not_make_an_environment_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, and then finds it ready."""
    made: list[Path] = []
    monkeypatch.setattr(venvs_module, "_make", lambda folder, *_: folder.mkdir())

    def make() -> None:
        server_venv("none", (), python=sys.executable, finish=made.append)

    probe = server_venv("none", (), python=sys.executable, finish=made.append)
    (probe / ".ready").unlink()
    with probe.with_name(probe.name + ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=make)
        waiting.start()
        wait_until(lambda: _waits_for_a_lock(), "the second waits")
        assert made == [probe]
        (probe / ".ready").touch()
    waiting.join(DEADLINE)
    assert made == [probe]


def _waits_for_a_lock() -> bool:
    return f"FLOCK  ADVISORY  WRITE {os.getpid()}" in "".join(
        line for line in Path("/proc/locks").read_text().splitlines(keepends=True) if "->" in line
    )


@pytest.mark.slow
def test_pip_says_why_it_cannot(cache: Path) -> None:
    """A requirement that cannot be had makes the server unavailable, with pip's reason."""
    with pytest.raises(ServerUnavailableError, match=r"nowhere\.whl"):
        server_venv("none", (), alone=["./nowhere.whl"], python=sys.executable)
    assert not list(cache.glob("none-*/.ready"))


def test_an_interpreter_that_is_not_there_is_said(cache: Path) -> None:
    """No traceback of subprocess, a reason."""
    with pytest.raises(ServerUnavailableError, match="no-such-python"):
        server_venv("none", (), python="/no-such-python")


# -- the guardian --------------------------------------------------------------------------------------------------

FAMILY = "import os, subprocess, sys; subprocess.Popen(['sleep', '1000']); print('up', flush=True); os.read(0, 1); "


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """A guardian without a server."""
    found = Guarded("test", shm_prefix="penstock-test-guard-" + os.urandom(8).hex())
    yield found
    found.close()


def family(guarded: Guarded) -> list[psutil.Process]:
    """Start a process with a child that does not end by itself; both."""
    code = FAMILY + "import signal; signal.pause()"
    pid = guarded.start(Command([sys.executable, "-c", code], ENVIRONMENT, guarded.folder))
    wait_until(lambda: guarded.log.exists() and "up" in guarded.log.read_text(), "it starts")
    parent = psutil.Process(pid)
    return [parent, *parent.children()]


@pytest.mark.kills
def test_a_kill_takes_the_children_too(guarded: Guarded) -> None:
    """Also those whose parent is dead already."""
    parent, child = family(guarded)
    parent.kill()
    wait_until(lambda: not guarded.alive(), "its death is seen")
    assert child.is_running()
    guarded.kill()
    assert gone(child.pid)


@pytest.mark.kills
def test_a_stopped_server_can_be_killed(guarded: Guarded) -> None:
    """SIGSTOP and SIGCONT reach all of it, and SIGKILL ends it in either state."""
    processes = family(guarded)
    guarded.signal(signal.SIGSTOP)
    wait_until(lambda: all(p.status() == psutil.STATUS_STOPPED for p in processes), "all are stopped")
    guarded.signal(signal.SIGCONT)
    wait_until(lambda: not any(p.status() == psutil.STATUS_STOPPED for p in processes), "all go on")
    guarded.signal(signal.SIGSTOP)
    guarded.kill()
    assert all(gone(p.pid) for p in processes)


def test_closing_removes_processes_folder_and_shared_memory(guarded: Guarded) -> None:
    """And only the shared memory of its own prefix."""
    processes = family(guarded)
    prefix = guarded.shm_prefix
    own, foreign = Path("/dev/shm", prefix + "-1"), Path("/dev/shm", prefix[:-1])
    try:
        own.touch()
        foreign.touch()
        guarded.close()
        guarded.close()
        assert all(gone(p.pid) for p in processes)
        assert not own.exists()
        assert foreign.exists()
        assert not guarded.folder.exists()
    finally:
        foreign.unlink()
    with pytest.raises(ServerError, match="closed"):
        guarded.kill()


def test_what_cannot_be_started_is_said(guarded: Guarded) -> None:
    """The guardian survives it."""
    with pytest.raises(ServerError, match="no-such-program"):
        guarded.start(Command(["/no-such-program"], {}, guarded.folder))
    family(guarded)


@pytest.mark.kills
def test_closing_ends_what_a_killed_guardian_left(guarded: Guarded) -> None:
    """The server dies with its guardian, but not what the server has started."""
    server, child = family(guarded)
    psutil.Process(server.ppid()).kill()
    wait_until(lambda: gone(server.pid), "the server ends with its guardian")
    assert child.is_running()
    guarded.close()
    wait_until(lambda: gone(child.pid), "its child ends")
    assert not guarded.folder.exists()


@pytest.mark.kills
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_signal_ends_the_guardian_and_all_below_it(
    guarded: Guarded, send: Callable[[int, int], None], number: int
) -> None:
    """As a shutdown sends it to every process, or to the group: nothing stays, with nobody left to close it."""
    server, child = family(guarded)
    send(server.ppid(), number)
    wait_until(lambda: gone(server.pid) and gone(child.pid), "all end")
    wait_until(lambda: not guarded.folder.exists(), "its folder goes")


def test_a_server_whose_guardian_ended_before_it_could_ask_to_die_with_it_does_not_start() -> None:
    """The signal comes only to who has asked for it."""
    code = "import sys, guardian; guardian._die_with(int(sys.argv[1])); print('started')"
    for parent, said in ((os.getpid(), "started\n"), (os.getppid(), "")):
        found = subprocess.run(
            [sys.executable, "-c", code, str(parent)], cwd=SERVERS, capture_output=True, text=True, check=False
        )
        assert found.stdout == said, found.stderr


HOST = """
import os, signal, sys
from pathlib import Path
from penstock.engine.servers.guarded import Command, Guarded
guarded = Guarded("test", shm_prefix=sys.argv[1])
Path("/dev/shm", sys.argv[1] + "-1").touch()
pid = guarded.start(Command(["sleep", "1000"], {"PATH": os.environ["PATH"]}, guarded.folder))
if os.fork() == 0:  # a fork that lives on holds a copy of the guardian's pipe
    signal.pause()
print(pid, guarded.folder, flush=True)
signal.pause()
"""


@pytest.mark.kills
def test_nothing_stays_when_the_starter_is_killed() -> None:
    """SIGKILL of the starter, whose fork lives on: server, folder and shared memory go all the same."""
    prefix = "penstock-test-guard-" + os.urandom(8).hex()
    with subprocess.Popen(
        [sys.executable, "-c", HOST, prefix], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as host:
        try:
            assert host.stdout is not None
            pid, folder = host.stdout.readline().split()
            assert psutil.pid_exists(int(pid))
            host.kill()
            wait_until(lambda: gone(int(pid)), "the server ends")
            wait_until(lambda: not Path(folder).exists(), "its folder goes")
            assert not Path("/dev/shm", prefix + "-1").exists()
        finally:
            os.killpg(host.pid, signal.SIGKILL)
