"""The fork server itself: what it imports first, its end, what it closes, and the hosts that it works in."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from penstock.errors import WorkerStartError
from penstock.shm import Zygote, recv_frame
from penstock.tests.children import hear, say
from penstock.tests.waiting import DEADLINE


def run(script: str, *arguments: str, cwd: str | None = None) -> str:
    """Run a program of its own, without a main guard, as users do."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- preloading ----------------------------------------------------------------------------------------------


def test_start_does_not_wait_for_the_preload(entries: str, tmp_path: Path) -> None:
    """The import blocks until we let it go on, which we can only because start has returned."""
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    Path(entries, "shm_slow.py").write_text(f"open({str(fifo)!r}).read()")
    with Zygote(["shm_slow"]) as zygote:
        fifo.write_text("go")
        with zygote.fork("shm_entries:echo") as child:
            assert say(child, b"x") == b"x"


def test_a_failing_preload_is_an_error_with_its_traceback(entries: str) -> None:
    """Each time; there is no half-started fork server."""
    Path(entries, "shm_broken.py").write_text("x = 1 / 0")
    with Zygote(["shm_broken"]) as zygote:
        for _ in range(2):
            with pytest.raises(WorkerStartError, match=r"(?s)preload.*shm_broken.py.*ZeroDivisionError"):
                zygote.fork("shm_entries:echo")
        assert zygote.pid == 0


def test_a_crashing_preload_is_an_error_with_its_last_words(entries: str) -> None:
    """What the fork server wrote to its stderr, down to the faulting line."""
    Path(entries, "shm_crash.py").write_text("import sys, os; print('my last words', file=sys.stderr); os.abort()")
    with (
        Zygote(["shm_crash"]) as zygote,
        pytest.raises(WorkerStartError, match=r"(?s)my last words.*Aborted"),
    ):
        zygote.fork("shm_entries:echo")


@pytest.mark.slow
def test_jax_can_be_preloaded(zygote: Zygote) -> None:
    """Importing it starts no thread when OpenBLAS is told not to, so its fork is safe."""
    with Zygote(["jax", "PIL.Image"], {"NPROC": "1", "OPENBLAS_NUM_THREADS": "1"}) as other:
        with other.fork("shm_entries:echo") as child:
            assert say(child, b"x") == b"x"
        assert psutil.Process(other.pid).num_threads() == 1


def test_close_wakes_who_waits_for_a_preload(entries: str, tmp_path: Path) -> None:
    """A pool that is closed while it starts does not hang for the import."""
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    Path(entries, "shm_never.py").write_text(f"open({str(fifo)!r}).read()")
    zygote = Zygote(["shm_never"])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(zygote.fork, "shm_entries:echo")
        with fifo.open("w"):  # returns when the import has opened it: fork() is waiting now
            zygote.close()
            with pytest.raises(WorkerStartError):
                waiting.result(10)
    assert zygote.pid == 0


# -- its end, and what it leaves -----------------------------------------------------------------------------


@pytest.mark.kills
def test_a_killed_fork_server_takes_its_children_and_is_replaced(zygote: Zygote) -> None:
    """Its children die with it, say so, and the next fork has a new one."""
    with zygote.fork("shm_entries:stay") as child:
        assert hear(child) == b"here"
        before = zygote.pid
        os.kill(before, signal.SIGKILL)
        assert recv_frame(child.socket) is None
        assert child.describe_exit(10) == "was killed when its fork server died"
    with zygote.fork("shm_entries:echo") as child:
        assert zygote.pid != before
        assert say(child, b"again") == b"again"


@pytest.mark.kills
@pytest.mark.slow
def test_closing_ends_children_that_will_not_leave(entries: str) -> None:
    """They have a second's grace; nothing is left, not even a zombie; and one can start anew."""
    zygote = Zygote()
    stubborn, willing = zygote.fork("shm_entries:stay"), zygote.fork("shm_entries:echo")
    server = zygote.pid
    assert hear(stubborn) == b"here"
    with stubborn, willing:
        willing.socket.close()
        zygote.close()
        zygote.close()
        assert stubborn.describe_exit(10) == "was killed by signal 9 (SIGKILL)"
        assert willing.describe_exit(10) == "exited with status 0"
        for pid in (server, stubborn.pid, willing.pid):
            assert not psutil.pid_exists(pid)
    with zygote, zygote.fork("shm_entries:echo") as child:
        assert say(child, b"anew") == b"anew"


def test_nothing_is_open_after_a_failure(entries: str) -> None:
    """Failed starts give back what they took."""
    before = psutil.Process().num_fds()
    for zygote in (Zygote(["shm_missing"]), Zygote()):
        with zygote, pytest.raises(WorkerStartError):
            zygote.fork("shm_missing:main")
    assert psutil.Process().num_fds() == before


# -- descriptors, and systems without what it needs ----------------------------------------------------------

CLOSING = """
    import errno, os, resource, sys
    from penstock.shm import fork_server

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    one, two = os.pipe()
    os.dup2(one, 900)
    tried = []

    def one_by_one(low, high):
        # what os.closerange is where there is no close_range
        tried.append((low, high))
        for fd in range(low, min(high, 2000)):
            try:
                os.close(fd)
            except OSError:
                pass

    def hidden(path):
        raise FileNotFoundError(errno.ENOENT, path)

    os.closerange, listdir = one_by_one, os.listdir
    if sys.argv[1] == "hidden":
        os.listdir = hidden
    fork_server.close_others({two, 0})
    print(two, sorted(fd for fd in range(3, 2000) if os.path.exists(f"/proc/self/fd/{fd}")), bool(tried))
"""


@pytest.mark.parametrize("proc", ["there", "hidden"])
def test_a_child_closes_what_is_open_and_does_not_try_every_number_there_may_be(proc: str) -> None:
    """Containers allow 2^30 descriptors: trying them all takes minutes where Python has no ``close_range``."""
    command = [sys.executable, "-c", textwrap.dedent(CLOSING), proc]
    kept, *found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert found == [f"[{kept}]", str(proc == "hidden")]


def test_a_system_where_processes_cannot_be_watched_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, and nothing stays open."""

    def refused(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refused)
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(WorkerStartError, match="pidfd_open does not work here"):
        Zygote().start()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


# -- hosts: programs of their own ----------------------------------------------------------------------------


def test_it_works_in_a_daemonic_process_without_a_main_guard(entries: str) -> None:
    """Where multiprocessing refuses: Airflow tasks, workers of a multiprocessing.Pool, notebooks."""
    script = """
        import multiprocessing, sys
        sys.path.insert(0, sys.argv[1])
        from penstock.shm import Zygote, recv_frame, send_frame

        def task():
            with Zygote() as zygote, zygote.fork("shm_entries:echo", b"deep ") as child:
                send_frame(child.socket, b"inside")
                print(recv_frame(child.socket).decode(), multiprocessing.current_process().daemon, flush=True)

        process = multiprocessing.get_context("fork").Process(target=task, daemon=True)
        process.start()
        process.join()
    """
    assert run(script, entries) == "deep inside True\n"


def test_it_works_with_standard_streams_closed(entries: str, tmp_path: Path) -> None:
    """As in a daemon: the numbers 0 to 2 then belong to whatever was opened first."""
    script = """
        import os, sys
        os.closerange(0, 3)
        sys.path.insert(0, sys.argv[1])
        from penstock.shm import Zygote, recv_frame, send_frame
        with Zygote() as zygote:
            for turn in range(2):
                with zygote.fork("shm_entries:die", b"raise") as loud, zygote.fork("shm_entries:echo") as child:
                    send_frame(child.socket, b"dark")
                    answer = recv_frame(child.socket) + loud.describe_exit(10).encode()
        open(sys.argv[2], "wb").write(answer)
    """
    run(script, entries, str(tmp_path / "answer"))
    assert (tmp_path / "answer").read_bytes() == b"darkexited with status 1"


def test_neither_directory_nor_environment_changes_what_is_imported(entries: str, tmp_path: Path) -> None:
    """A json.py in the current directory, or on a PYTHONPATH set later, is not what the parent would import either."""
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for module in ("json", "socket", "wave"):
            (tmp_path / place / f"{module}.py").write_text("raise SystemExit('hijacked')")
    script = """
        import os, sys
        sys.path[0] = sys.argv[1]  # "" is here: a script's own folder, not the current one
        os.environ["PYTHONPATH"] = sys.argv[2]
        from penstock.shm import Zygote, recv_frame, send_frame
        with Zygote(["wave"]) as zygote, zygote.fork("shm_entries:echo") as child:
            send_frame(child.socket, b"ours")
            print(recv_frame(child.socket).decode())
    """
    # -c puts "" first, so this script itself must not import what is hijacked before it has set sys.path
    assert run(script, entries, str(tmp_path / "there"), cwd=str(tmp_path / "here")) == "ours\n"


def test_a_host_that_ignores_and_blocks_signals_still_hears_statuses(entries: str) -> None:
    """Dispositions and masks are inherited through exec; the fork server begins anew."""
    script = """
        import signal, sys
        sys.path.insert(0, sys.argv[1])
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
        from penstock.shm import Zygote
        with Zygote() as zygote, zygote.fork("shm_entries:die", b"term") as child:
            print(child.describe_exit(10))
    """
    assert run(script, entries) == "was killed by signal 15 (SIGTERM)\n"


def test_a_fork_of_the_host_has_no_say(entries: str) -> None:
    """It can neither fork with its copy nor end the original's fork server by closing it."""
    script = """
        import os, sys
        sys.path.insert(0, sys.argv[1])
        from penstock.errors import WorkerStartError
        from penstock.shm import Zygote, recv_frame, send_frame
        with Zygote() as zygote, zygote.fork("shm_entries:echo") as child:
            if (pid := os.fork()) == 0:
                try:
                    zygote.fork("shm_entries:echo")
                except WorkerStartError as error:
                    zygote.close()
                    os._exit(0 if "is a fork" in str(error) else 1)
                os._exit(2)
            assert os.waitpid(pid, 0)[1] == 0
            send_frame(child.socket, b"alive")
            print(recv_frame(child.socket).decode())
    """
    assert run(script, entries) == "alive\n"
