"""The fork server and its children: how they start, talk, end, and what they do not leave behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from penstock.errors import WorkerStartError
from penstock.shm import Child, Ring, SlotLayout, Zygote, recv_frame, send_frame, send_frame_fds
from penstock.tests.waiting import DEADLINE

ENTRIES = """
import ctypes, json, os, signal, sys
from penstock.shm import Ring, SlotLayout, recv_frame, recv_frame_fds, send_frame

def echo(sock, argument, fds):
    while (frame := recv_frame(sock)) is not None:
        send_frame(sock, argument + frame)

def look(sock, argument, fds):
    send_frame(sock, json.dumps({
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)),
        "own": sorted([sock.fileno(), *fds]),
        "stdin": os.readlink("/proc/self/fd/0"),
        "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "path": sys.path,
        "modules": [name for name in ("numpy", "wave", "penstock.shm") if name in sys.modules],
        "color": os.environ.get("SHM_TEST_COLOR"),
        "session": os.getsid(0),
    }).encode())

def write(sock, argument, fds):
    os.write(fds[0], argument)

def fill(sock, argument, fds):
    layout = SlotLayout.from_json(json.loads(argument))
    frame, got = recv_frame_fds(sock)
    ring = Ring.attach(got[0], layout, int(frame))
    ring.begin(0, 1)
    ring.view(0).pixels[...] = 7
    ring.commit(0, 1, layout.rows)
    send_frame(sock, b"done")

def push(sock, argument, fds):
    while True:
        send_frame(sock, bytes(1 << 16))

def stay(sock, argument, fds):
    send_frame(sock, b"here")
    signal.pause()

def die(sock, argument, fds):
    {
        "return": lambda: None,
        "raise": lambda: [][1],
        "exit 0": lambda: sys.exit(),
        "exit 3": lambda: sys.exit(3),
        "exit text": lambda: sys.exit("no more"),
        "_exit": lambda: os._exit(7),
        "segfault": lambda: ctypes.string_at(0),
        "abort": lambda: os.abort(),
        "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "memory": lambda: bytearray(1 << 60),
        "system error": lambda: sys.exit(signal),
    }[argument.decode()]()
"""


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder on sys.path with a module of entry points, which only that tells the fork server where to find."""
    folder = tmp_path_factory.mktemp("entries")
    (folder / "shm_entries.py").write_text(ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield str(folder)


@pytest.fixture(scope="module")
def zygote(entries: str) -> Iterator[Zygote]:
    with Zygote(["wave"], {"SHM_TEST_COLOR": "red", "OPENBLAS_NUM_THREADS": "1"}) as made:
        yield made


def say(child: Child, message: bytes = b"") -> bytes | None:
    child.socket.settimeout(10)
    send_frame(child.socket, message)
    return recv_frame(child.socket)


def hear(child: Child) -> bytes:
    child.socket.settimeout(10)
    frame = recv_frame(child.socket)
    assert frame is not None
    return frame


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
        told = json.loads(hear(child))
    os.close(read)
    os.close(write)
    assert told["fds"] == [0, 1, 2, *told["own"]]
    assert told["stdin"] == "/dev/null"
    assert told["sigint"]
    assert told["sigterm"]
    assert told["blocked"] == 0
    assert told["color"] == "red"
    assert told["path"] == [entry or str(Path.cwd()) for entry in sys.path]
    assert told["path"][0] == entries
    assert {"wave", "penstock.shm"} <= set(told["modules"])
    assert told["session"] != os.getsid(0)


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
    layout = SlotLayout(4, (3, 8, 8), "uint8", 2)
    with (
        Ring.create(layout, 2, directory=str(tmp_path)) as ring,
        zygote.fork("shm_entries:fill", json.dumps(layout.to_json()).encode()) as child,
    ):
        ring.unlink()
        send_frame_fds(child.socket, b"2", [ring.fd])
        assert hear(child) == b"done"
        ring.check(0, 1, 4)
        assert (ring.view(0).pixels == 7).all()


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
        told = capfd.readouterr().err
        assert "IndexError" in told
        assert "Segmentation fault" in told
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


def test_start_does_not_wait_for_the_preload(entries: str, tmp_path: Path) -> None:
    """The import blocks until we let it go on, which we can only because start has returned."""
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    Path(entries, "shm_slow.py").write_text(f"open({str(fifo)!r}).read()")
    with Zygote(["shm_slow"]) as zygote:
        fifo.write_text("go")
        with zygote.fork("shm_entries:echo") as child:
            assert say(child, b"x") == b"x"


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


def test_nothing_is_open_after_a_failure(entries: str) -> None:
    """Failed starts give back what they took."""
    before = psutil.Process().num_fds()
    for zygote in (Zygote(["shm_missing"]), Zygote()):
        with zygote, pytest.raises(WorkerStartError):
            zygote.fork("shm_missing:main")
    assert psutil.Process().num_fds() == before


def test_a_long_argument_arrives(zygote: Zygote) -> None:
    """Longer than any socket buffer."""
    argument = os.urandom(1 << 20)
    with zygote.fork("shm_entries:echo", argument) as child:
        assert say(child) == argument


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


@pytest.mark.slow
def test_jax_can_be_preloaded(zygote: Zygote) -> None:
    """Importing it starts no thread when OpenBLAS is told not to, so its fork is safe."""
    with Zygote(["jax", "PIL.Image"], {"NPROC": "1", "OPENBLAS_NUM_THREADS": "1"}) as other:
        with other.fork("shm_entries:echo") as child:
            assert say(child, b"x") == b"x"
        assert psutil.Process(other.pid).num_threads() == 1


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
