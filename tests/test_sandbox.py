"""``sandbox``: what a worker that a picture has taken over can still do, tried from inside real workers.

Contract: from before the first picture on a confined worker reaches no network, starts no program, writes no file,
touches no other process; it makes the same pixels all the same, and what it dies of is named.
"""

from __future__ import annotations

import errno
import io
import logging
import platform
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penstock.bench.hostile import make_hostile
from penstock.engine.workers import PreprocessPool
from penstock.errors import ConfigError, PoisonItemError
from penstock.preprocess import PreprocessSpec
from penstock.preprocess.sandbox import landlock, sandbox, seccomp

MakePool = Callable[..., PreprocessPool]
Array = np.ndarray[Any, np.dtype[Any]]

confined = pytest.mark.skipif(
    not (seccomp.is_available() and landlock.version()), reason="this kernel has not all the means of a sandbox"
)

PROBES = {
    # what the worker tries: (its code, whether it may)
    "make a socket": ("socket.socket()", False),
    "connect a socket": ("libc.connect(3, b'', 0) and fail()", False),
    "make a Unix socket": ("socket.socket(socket.AF_UNIX)", False),
    "look up a name": ("socket.create_connection(('127.0.0.1', 9))", False),
    "fork": ("os.fork() or os._exit(0)", False),
    "execute": ("os.execv('/bin/true', ['true'])", False),
    "start a program": ("subprocess.run(['/bin/true'])", False),
    "use a shell": ("os.posix_spawn('/bin/sh', ['sh', '-c', 'true'], {})", False),
    "make a file": ("open(FOLDER + '/new', 'w')", False),
    "write into a file": ("open(FOLDER + '/there', 'a')", False),
    "write into the compilation cache": ("open(str(compilation_cache()) + '/evil', 'w')", False),
    "make a folder": ("os.mkdir(FOLDER + '/newdir')", False),
    "remove a file": ("os.unlink(FOLDER + '/there')", False),
    "rename a file": ("os.rename(FOLDER + '/there', FOLDER + '/gone')", False),
    "make a link": ("os.symlink('/etc/passwd', FOLDER + '/link')", False),
    "change a mode": ("os.chmod(FOLDER + '/there', 0o777)", False),
    "change a time": ("os.utime(FOLDER + '/there')", False),
    "shorten a file": ("os.truncate(FOLDER + '/there', 0)", False),
    "shorten its ring": ("os.ftruncate(ring(), 0)", False),
    "signal another process": ("os.kill(os.getppid(), 0)", False),
    "signal everybody": ("os.kill(-1, 0)", False),
    "read its parent's environment": ("open(f'/proc/{os.getppid()}/environ').read()", False),
    "read its parent's memory": ("open(f'/proc/{os.getppid()}/mem', 'rb')", False),
    "use io_uring": ("libc.syscall(425, 8, 0) < 0 and fail()", False),
    "make a pair of sockets": ("socket.socketpair()", False),
    "make a pair of datagram sockets": ("socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)", False),
    "limit another process": ("libc.prlimit(os.getppid(), 4, None, struct.pack('16x')) and fail()", False),
    "slow another process down": ("os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)", False),
    "choose another process's processors": ("os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0))", False),
    "look for shared memory": ("libc.shmget(KEY, 0, 0) < 0 and fail()", False),
    "look for a semaphore": ("libc.semget(KEY, 0, 0) < 0 and fail()", False),
    "look for a message queue": ("libc.msgget(KEY, 0) < 0 and fail()", False),
    "open a message queue": ("libc.mq_open(b'/penstock-probe', 0, 0, None) < 0 and fail()", False),
    "have another process signalled": ("there(lambda fd: fcntl.fcntl(fd, fcntl.F_SETOWN, os.getppid()))", False),
    "have it signalled by a kill": ("there(lambda fd: fcntl.fcntl(fd, fcntl.F_SETSIG, 9))", False),
    "have a thread of it signalled": (
        "there(lambda fd: fcntl.fcntl(fd, 15, struct.pack('ii', 1, os.getppid())))",
        False,
    ),
    "change a file's attributes": ("there(lambda fd: fcntl.ioctl(fd, 0x40086602, struct.pack('l', 0)))", False),
    "lock a file": ("there(lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))", False),
    "lock a file for reading": ("there(lambda fd: fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB))", False),
    "lock bytes of a file": ("there(lambda fd: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB))", False),
    "lease a file": ("there(lambda fd: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK))", False),
    "raise a limit": ("raise_limit()", False),
    "become another user": ("os.setuid(os.getuid() + 1)", False),
    "read a file": ("open(FOLDER + '/there').read()", True),
    "ask whether a file is a terminal": ("there(os.isatty) and fail()", True),
    "ask for its own limits": ("resource.getrlimit(resource.RLIMIT_CPU)", True),
    "list a folder": ("os.listdir(FOLDER)", True),
    "start a thread": ("run_in_thread(lambda: None)", True),
    "signal itself": ("os.kill(os.getpid(), 0)", True),
    "make a socket in a thread": ("run_in_thread(socket.socket)", False),
    "make a file in a thread": ("run_in_thread(lambda: open(FOLDER + '/new', 'w'))", False),
}


def user_code(folder: Path, probes: Iterable[str]) -> str:
    """Name of a new transform that tries these probes when a picture comes, and answers with their errnos."""
    name = f"probes_{folder.name.replace('-', '_')}"
    tries = ",\n            ".join(f"lambda: {PROBES[probe][0]}" for probe in probes)
    code = f"""
        import ctypes, fcntl, os, resource, socket, struct, subprocess, threading
        import jax, numpy as np
        from penstock.preprocess.worker.jax_runtime import compilation_cache

        FOLDER = {str(folder)!r}
        KEY = 0x70656E73  # of nothing: not refused, the answer is that there is nothing
        libc = ctypes.CDLL(None, use_errno=True)

        def no(number):
            raise OSError(number, "")

        def fail():
            no(ctypes.get_errno())

        def there(work):
            with open(FOLDER + "/there", "rb") as file:  # closed again: what one may before the seal shall not last
                return work(file.fileno())

        def ring():
            files = {{int(fd): os.path.realpath("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")}}
            rings = [fd for fd, path in files.items() if path.startswith("/dev/shm/")]
            return rings[0] if rings else no(2)  # it comes when the kernel is compiled, for which this is run once

        def raise_limit():
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            except ValueError:  # which is how Python says EPERM here
                no(1)

        def run_in_thread(work):
            caught = []
            def run():
                try:
                    work()
                except OSError as error:
                    caught.append(error)
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            if caught:
                raise caught[0]

        TRIES = [
            {tries}
        ]

        def attempt(work):
            try:
                work()
            except OSError as error:
                return error.errno
            return 0

        def on_a_picture(picture):
            return np.array([attempt(work) for work in TRIES], np.float32)

        def transform(picture):
            return jax.pure_callback(on_a_picture, jax.ShapeDtypeStruct((len(TRIES),), np.float32), picture)
    """
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    (folder / "there").write_text("precious")
    return f"{name}:transform"


@pytest.fixture
def make_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePool]:
    """Pools of one worker on this thread's hub, which find user code in ``tmp_path``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    pools: list[PreprocessPool] = []

    def make(spec: PreprocessSpec, **options: Any) -> PreprocessPool:
        settings: dict[str, Any] = {"workers": 1, "batch_size": 8, "slots": 2, "sandbox": True, **options}
        pool = PreprocessPool(spec, **settings)
        pools.append(pool)
        pool.start()
        pool.start_in_hub()
        return pool

    yield make
    for pool in pools:
        pool.stop_in_hub()
        pool.close()


@confined
@pytest.mark.slow
def test_a_confined_worker_can_do_little_but_its_work(make_pool: MakePool, photos: list[Path], tmp_path: Path) -> None:
    """User code that runs when a picture has come is refused network, programs, files and other processes."""
    pool = make_pool(PreprocessSpec(transform=user_code(tmp_path, PROBES), size=64, resize=64), batch_size=1)
    batch = pool.process([str(photos[0])])
    assert not batch.failures
    answers = dict(zip(PROBES, batch.pixels[0].astype(int).tolist(), strict=True))
    batch.release()
    wrong = {
        name: errno.errorcode.get(answers[name], answers[name])
        for name, (_, may) in PROBES.items()
        if answers[name] not in ((0,) if may else (errno.EPERM, errno.EACCES))
    }
    assert not wrong
    assert (tmp_path / "there").read_text() == "precious"
    assert not any((tmp_path / name).exists() for name in ("new", "newdir", "gone", "link"))


@pytest.mark.slow
def test_the_probes_find_something_without_a_sandbox(make_pool: MakePool, photos: list[Path], tmp_path: Path) -> None:
    """Not confined, the same code may do nearly all of it: the test above can fail."""
    harmless = (
        *("make a socket", "make a file", "write into a file", "signal another process", "change a mode"),
        *("make a pair of sockets", "make a pair of datagram sockets", "have another process signalled"),
        *("have it signalled by a kill", "lock a file", "lock a file for reading", "lock bytes of a file"),
    )
    spec = PreprocessSpec(transform=user_code(tmp_path, harmless), size=64, resize=64)
    batch = make_pool(spec, batch_size=1, sandbox=False).process([str(photos[0])])
    assert batch.pixels[0].tolist() == [0.0] * len(harmless)
    batch.release()


def pictures() -> list[bytes]:
    """One of each format and of each mode that takes another way through the decoder."""
    noise = np.random.default_rng(7).integers(0, 256, (90, 120, 3), np.uint8)
    rgb = Image.fromarray(noise)
    deep = Image.fromarray((noise[..., 0].astype(np.uint16) << 8) + noise[..., 1])
    ways: list[tuple[Image.Image, str]] = [
        *((rgb, name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")),
        (rgb.convert("CMYK"), "JPEG"),
        (rgb.convert("RGBA"), "PNG"),
        (deep, "PNG"),
        (rgb.convert("1"), "TIFF"),
    ]
    files: list[bytes] = []
    for picture, name in ways:
        file = io.BytesIO()
        picture.save(file, name)
        files.append(file.getvalue())
    return files


@pytest.mark.slow
@pytest.mark.skipif(not sandbox.means(), reason="this kernel has no means of a sandbox")
@pytest.mark.parametrize("embedder", [None, ("penstock.engine.embedders:parse_embedder", "gist")], ids=["none", "gist"])
def test_pixels_and_vectors_are_the_same_inside(make_pool: MakePool, embedder: tuple[str, str] | None) -> None:
    """Every format decodes inside a sandbox to the very pixels it has outside, and GIST makes the same vectors."""
    spec = PreprocessSpec(size=256, resize=256) if embedder else PreprocessSpec(size=64, resize=64)
    made: list[tuple[Array, Array]] = []
    for confine in (False, True):
        pool = make_pool(spec, sandbox=confine, embedder=embedder, batch_size=10)
        batch = pool.process(pictures())
        assert not batch.failures
        made.append((batch.pixels.copy(), batch.view.embeddings[:10].copy()))
        batch.release()
    np.testing.assert_array_equal(made[0][0], made[1][0])
    np.testing.assert_array_equal(made[0][1], made[1][1])


@pytest.mark.slow
@pytest.mark.skipif(not sandbox.means(), reason="this kernel has no means of a sandbox")
def test_hostile_files_are_refused_in_the_same_words(make_pool: MakePool, tmp_path: Path) -> None:
    """The whole hostile folder fares inside as it does outside: same rows, same errors, no worker lost."""
    make_hostile(tmp_path / "hostile")
    files = sorted(str(path) for path in (tmp_path / "hostile").rglob("*") if path.is_file())
    fates: list[dict[str, str]] = []
    for confine in (False, True):
        pool = make_pool(PreprocessSpec(size=64, resize=64), sandbox=confine, batch_size=len(files))
        pids = pool.pids
        batch = pool.process(files)
        fate = {files[row.position]: f"{row.width}x{row.height}" for row in batch.rows}
        fates.append(fate | {files[position]: str(error) for position, error in batch.failures})
        batch.release()
        assert pool.pids == pids
    assert len(fates[0]) == len(files) > 20
    assert fates[0] == fates[1]


@pytest.mark.slow
@pytest.mark.skipif(not seccomp.is_available(), reason="this kernel allows no filters")
def test_a_picture_that_makes_its_worker_attack_is_a_named_failure(
    make_pool: MakePool, photos: list[Path], tmp_path: Path
) -> None:
    """Only an attack traces other processes: the kernel kills the worker, the picture is given up by name, alone."""
    name = f"attack_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        textwrap.dedent(
            """
            import ctypes, os
            from penstock.preprocess.worker.preprocessor import Preprocessor

            class Nothing:
                dimension = 0
                def open(self, spec, rows): pass
                def embed(self, view, rows): pass

            def make(argument):
                load = Preprocessor.load
                def patched(self, row, source):
                    if bytes(source).startswith(b"attack"):
                        ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)
                    return load(self, row, source)
                Preprocessor.load = patched
                return Nothing()
            """
        )
    )
    pool = make_pool(PreprocessSpec(size=64, resize=64), embedder=(f"{name}:make", ""))
    batch = pool.process([photos[0].read_bytes(), b"attack", photos[1].read_bytes()])
    [(position, error)] = batch.failures
    assert position == 1
    assert isinstance(error, PoisonItemError)
    assert "SIGSYS" in str(error)
    assert "sandbox" in str(error)
    assert [row.position for row in batch.rows] == [0, 2]
    batch.release()


@pytest.mark.slow
@pytest.mark.skipif(not sandbox.means(), reason="this kernel has no means of a sandbox")
def test_a_worker_has_its_limits_before_its_first_picture(make_pool: MakePool, photos: list[Path]) -> None:
    """When the first batch is back the kernel shows no new privileges, and limits on cores, descriptors and memory."""
    pool = make_pool(PreprocessSpec(size=64, resize=64))
    pool.process([str(photos[0])]).release()
    status = Path(f"/proc/{pool.pids[0]}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    lines = Path(f"/proc/{pool.pids[0]}/limits").read_text().splitlines()
    limits = {line[:25].strip(): line[25:].split()[:2] for line in lines}
    assert limits["Max core file size"] == ["0", "0"]
    assert int(limits["Max open files"][1]) <= 256
    assert 2**32 < int(limits["Max address space"][1]) < 2**36


def test_accelerators_and_a_sandbox_exclude_one_another() -> None:
    """A driver opens its device files whenever it likes, so that the two together are refused at once."""
    with pytest.raises(ConfigError, match="devices"):
        PreprocessPool(PreprocessSpec(), workers=1, devices=[0], sandbox=True)


def test_a_sandbox_of_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither filters nor Landlock can be had, asking for a sandbox is an error that says both."""
    monkeypatch.setattr(seccomp, "is_available", lambda: False)
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert sandbox.means() == []
    with pytest.raises(ConfigError, match=r"seccomp.*Landlock"):
        PreprocessPool(PreprocessSpec(), workers=1, sandbox=True)


def test_a_machine_whose_calls_are_not_known_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On another processor the filters are left out, with a warning that names it; Landlock is used all the same."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(landlock, "version", lambda: 4)
    with caplog.at_level(logging.WARNING, "penstock"):
        sandbox.check_means()
    assert sandbox.means() == ["Landlock 4", "resource limits"]
    assert "riscv64" in caplog.text
