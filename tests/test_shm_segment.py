"""Segments: how they are made, who can see them, and what becomes of them when their owner is dead."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.errors import SharedMemoryError, SharedMemoryFullError
from penstock.shm import Orphan, Segment, orphans, require_room, sweep
from penstock.tests.waiting import DEADLINE

SIZE = 3 * 4096


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment.create(SIZE, directory=str(tmp_path)) as made:
        yield made


@pytest.fixture(params=["unnamed first", "named at once"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of making a segment; the second is for file systems without O_TMPFILE."""
    if request.param == "named at once":
        monkeypatch.setattr("penstock.shm.segment._create_unnamed", lambda *_: None)
    return str(request.param)


def leave_behind(directory: Path) -> Path:
    """What a killed owner leaves: a named segment that nobody has locked."""
    path = directory / f"penstock-{os.urandom(20).hex()}"
    path.write_bytes(bytes(8192))
    return path


def python(script: str, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, perhaps in other namespaces."""
    command = [*before, sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def unshare(*flags: str) -> tuple[str, ...]:
    """The command that enters new namespaces; skips the test where that is not permitted."""
    if os.geteuid() != 0:
        flags = ("--map-root-user", *flags)
    try:
        subprocess.run(["unshare", *flags, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no new namespaces here: {error}")
    return ("unshare", *flags)


def test_a_segment_is_private_unguessable_and_reserved(way: str, tmp_path: Path) -> None:
    """0600 whatever the umask, 160 random bits, every page there, locked, zeroed."""
    umask = os.umask(0)
    try:
        segment = Segment.create(SIZE, directory=str(tmp_path))
    finally:
        os.umask(umask)
    with segment:
        (path,) = tmp_path.iterdir()
        status = path.stat()
        assert path.name == segment.name
        assert len(segment.name) == len("penstock-") + 40
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_size == segment.nbytes == len(segment.buf) == SIZE
        assert status.st_blocks * 512 >= SIZE
        assert bytes(segment.buf) == bytes(SIZE)
        assert not os.get_inheritable(segment.fd)
        with path.open("r+b") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(tmp_path.iterdir()) == []


def test_names_are_never_the_same(tmp_path: Path) -> None:
    """Not even for the same size in the same process."""
    names: set[str] = set()
    for _ in range(20):
        with Segment.create(1, directory=str(tmp_path)) as segment:
            names.add(segment.name)
    assert len(names) == 20


def test_it_is_never_seen_unlocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep at the moment it gets its name leaves it alone."""
    link = os.link
    swept: list[str] = []

    def link_and_sweep(source: str, name: str, *, dst_dir_fd: int, follow_symlinks: bool) -> None:
        link(source, name, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
        swept.extend(sweep(str(tmp_path)))

    monkeypatch.setattr(os, "link", link_and_sweep)
    with Segment.create(SIZE, directory=str(tmp_path)) as segment:
        assert swept == []
        assert (tmp_path / segment.name).exists()


def test_a_name_that_is_swept_before_it_is_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without O_TMPFILE there is such a moment."""
    monkeypatch.setattr("penstock.shm.segment._create_unnamed", lambda *_: None)
    flock, swept = fcntl.flock, list[str]()

    def sweep_first(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        swept.extend(sweep(str(tmp_path)))
        flock(fd, how)

    sweep(str(tmp_path))
    monkeypatch.setattr("penstock.shm.segment.sweep", lambda _: [])
    monkeypatch.setattr(fcntl, "flock", sweep_first)
    with Segment.create(SIZE, directory=str(tmp_path)) as segment:
        assert len(swept) == 1
        assert [path.name for path in tmp_path.iterdir()] == [segment.name]


def test_the_mapping_outlives_the_name(segment: Segment, tmp_path: Path) -> None:
    """Unlinking early is safe: by descriptor it can be attached all the same. And again is nothing."""
    segment.unlink()
    segment.unlink()
    assert list(tmp_path.iterdir()) == []
    segment.buf[0] = 7
    with Segment.attach(os.dup(segment.fd), SIZE) as other:
        assert other.buf[0] == 7
        other.buf[1] = 8
        assert other.name == ""
        assert other.fd == -1
    assert segment.buf[1] == 8


def test_an_attached_segment_does_not_hold_the_owners_lock(segment: Segment, tmp_path: Path) -> None:
    """Else a worker that outlives its parent would hide that the parent is dead."""
    with Segment.attach(os.dup(segment.fd), SIZE):
        path = tmp_path / segment.name
        saved = tmp_path / "another name"
        path.rename(saved)  # where the owner's close cannot unlink it
        segment.close()
        with saved.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_attaching_leaves_the_name_and_closing_too(segment: Segment, tmp_path: Path) -> None:
    """Only the owner takes its name away."""
    other = Segment.attach(os.dup(segment.fd), SIZE)
    other.unlink()
    other.close()
    assert (tmp_path / segment.name).exists()


FORK = """
    import os, sys
    from penstock.shm import Segment, sweep
    if sys.argv[2] == "named at once":
        import penstock.shm.segment
        penstock.shm.segment._create_unnamed = lambda *_: None
    with Segment.create(8192, directory=sys.argv[1]) as segment:
        view = segment.buf
        if (child := os.fork()) == 0:
            assert segment.fd == -1
            spare = os.open(os.devnull, os.O_RDONLY)  # may have got the number of the descriptor that was let go of
            view[0] += 1
            segment.close()
            view[1] = 7
            os.fstat(spare)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert list(view[:2]) == [1, 7]
        assert sweep(sys.argv[1]) == []
        assert os.listdir(sys.argv[1]) == [segment.name]
"""


def test_a_fork_of_the_owner_owns_nothing_and_uses_what_is_mapped(way: str, tmp_path: Path) -> None:
    """It lets go of the lock and closes its copy: the owner keeps the lock and the name, and both see the memory."""
    done = python(FORK, str(tmp_path), way)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


VIEWS: dict[str, Callable[[memoryview], NDArray[np.uint8]]] = {
    "frombuffer": lambda buf: np.frombuffer(buf, np.uint8),
    "ndarray": lambda buf: np.ndarray(SIZE, np.uint8, buf),
    "asarray": lambda buf: np.asarray(buf[:]),
}


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_views_outlive_close(segment: Segment, make: Callable[[memoryview], NDArray[np.uint8]]) -> None:
    """However they were made: memory must not vanish from under an array (it did, with mmap.close)."""
    view = make(segment.buf)
    view[...] = 5
    segment.close()
    segment.close()
    gc.collect()
    assert view.sum() == 5 * SIZE
    with pytest.raises(SharedMemoryError, match="closed"):
        _ = segment.buf


def test_closing_gives_everything_back(tmp_path: Path) -> None:
    """Mapping, descriptor and file are gone once the last view is."""

    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    before = set(Path("/proc/self/fd").iterdir())
    segment = Segment.create(SIZE, directory=str(tmp_path))
    view = np.frombuffer(segment.buf, np.uint8)
    segment.close()
    assert mapped()
    del view
    assert not mapped()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_stranger_that_maps_it_and_exits_leaves_it(segment: Segment, tmp_path: Path) -> None:
    """Any process of this user may look; nothing happens to the owner when it goes (CPython #82300)."""
    script = """
        import mmap, sys
        with open(sys.argv[1], "r+b") as file:
            mmap.mmap(file.fileno(), 0)[0] = 9
    """
    path = tmp_path / segment.name
    assert python(script, str(path)).returncode == 0
    assert segment.buf[0] == 9
    assert path.stat().st_nlink == 1


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm")
def test_a_stranger_with_multiprocessings_tracker_cannot_hurt_the_ring() -> None:
    """Python's own class unlinks what it only attached; our mapping, and workers to come, need no name."""
    script = """
        import sys
        from multiprocessing.shared_memory import SharedMemory
        attached = SharedMemory(sys.argv[1])
        attached.buf[0] = 9
    """
    with Segment.create(SIZE) as segment:
        done = python(script, segment.name)
        assert done.returncode == 0, done.stderr
        assert segment.buf[0] == 9
        with Segment.attach(os.dup(segment.fd), SIZE) as other:
            assert other.buf[0] == 9
    assert not Path("/dev/shm", segment.name).exists()


def test_a_smaller_file_is_not_attached(segment: Segment) -> None:
    """Touching pages beyond its end would be a SIGBUS."""
    with pytest.raises(SharedMemoryError, match="not the same ring"):
        Segment.attach(os.dup(segment.fd), SIZE + 1)


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Of our own kind."""
    with pytest.raises(SharedMemoryError, match="missing"):
        Segment.create(SIZE, directory=str(tmp_path / "missing"))


# -- no room ----------------------------------------------------------------------------------------------------------

TMPFS = """
    import os, subprocess, sys
    import penstock.shm.segment as module
    from penstock.errors import SharedMemoryFullError
    from penstock.preprocess.slot_layout import pixel_layout
    from penstock.shm import Ring, Segment
    place = sys.argv[1]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
"""


@pytest.fixture
def tmpfs(tmp_path: Path) -> tuple[tuple[str, ...], str]:
    """A command prefix under which a tmpfs can be mounted, and where."""
    prefix = unshare("--mount")
    probe = python(TMPFS, str(tmp_path), before=prefix)
    if probe.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {probe.stderr.splitlines()[-1:]}")
    return prefix, str(tmp_path)


def test_a_full_tmpfs_is_an_error_before_the_start(tmpfs: tuple[tuple[str, ...], str]) -> None:
    """It says needed, free and what to set; leaves nothing; and what just fits is usable to its last byte."""
    script = (
        TMPFS
        + """
    try:
        Ring.create(pixel_layout(32, (3, 224, 224)), 3, directory=place)
    except SharedMemoryFullError as error:
        print(error)
    assert os.listdir(place) == []
    with Segment.create(1 << 20, directory=place) as segment:
        segment.buf[:] = b"x" * (1 << 20)
        try:
            Segment.create(1, directory=place)
        except SharedMemoryFullError as error:
            print(error)
        assert os.listdir(place) == [segment.name]
    Segment.create(1 << 20, directory=place).close()
    """
    )
    prefix, place = tmpfs
    done = python(script, place, before=prefix)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "55.1 MiB needed, 1.0 MiB free" in first
    assert "0.0 MiB free" in second
    for knob in ("workers", "slots", "batch_size", "image_size", "dtype", "--shm-size"):
        assert knob in first


@pytest.mark.parametrize("unnamed", [True, False])
def test_room_that_goes_while_we_look_is_an_error_too(tmpfs: tuple[tuple[str, ...], str], unnamed: bool) -> None:
    """The reservation itself fails, and leaves neither a name nor half of the pages."""
    script = (
        TMPFS
        + """
    module.require_room = lambda *_: None
    if sys.argv[2] == "False":
        module._create_unnamed = lambda *_: None
    free = os.statvfs(place).f_bavail
    try:
        Segment.create(2 << 20, directory=place)
    except SharedMemoryFullError as error:
        print(error)
    assert os.listdir(place) == []
    assert os.statvfs(place).f_bavail == free
    """
    )
    prefix, place = tmpfs
    done = python(script, place, str(unnamed), before=prefix)
    assert done.returncode == 0, done.stderr
    assert "2.0 MiB needed, 1.0 MiB free" in done.stdout


def test_room_is_made_by_sweeping_first(tmp_path: Path) -> None:
    """What dead owners hold does not count against a new start."""
    left = leave_behind(tmp_path)
    require_room(1, str(tmp_path))
    assert not left.exists()
    with pytest.raises(SharedMemoryFullError, match="needed"):
        require_room(1 << 60, str(tmp_path))


# -- the janitor ------------------------------------------------------------------------------------------------------


def test_the_janitor_takes_what_nobody_owns(segment: Segment, tmp_path: Path) -> None:
    """And first tells, without taking it; the living keep theirs."""
    left = sorted(str(leave_behind(tmp_path)) for _ in range(2))
    assert orphans(str(tmp_path)) == [Orphan(path, 8192) for path in left]
    assert orphans(str(tmp_path)) == [Orphan(path, 8192) for path in left], "looking changes nothing"
    assert sweep(str(tmp_path)) == left
    assert not sweep(str(tmp_path))
    assert not orphans(str(tmp_path))
    assert (tmp_path / segment.name).exists()


def test_the_janitor_touches_nothing_else(tmp_path: Path) -> None:
    """Foreign and half-right names, links, folders, pipes."""
    token = "0" * 40
    outside = tmp_path / "outside"
    outside.mkdir()
    target = leave_behind(outside)
    place = tmp_path / "place"
    place.mkdir()
    for name in (f"other-{token}", "penstock-", "penstock-short", f"penstock-{token}.bak", f"x-penstock-{token}"):
        (place / name).write_bytes(b"x")
    (place / f"penstock-{'1' * 40}").symlink_to(target)
    (place / f"penstock-{'2' * 40}").mkdir()
    os.mkfifo(place / f"penstock-{'3' * 40}")
    before = sorted(place.iterdir())
    assert sweep(str(place)) == []
    assert orphans(str(place)) == []
    assert sorted(place.iterdir()) == before
    assert target.exists()


def test_the_janitor_leaves_other_users_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when it runs as root."""
    left = leave_behind(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    assert not sweep(str(tmp_path))
    assert not orphans(str(tmp_path))
    assert left.exists()


def test_the_janitor_finds_no_directory_clean() -> None:
    """Where there is no /dev/shm there is nothing to sweep."""
    assert not sweep("/nowhere/at/all")
    assert not orphans("/nowhere/at/all")


def test_the_janitor_in_another_pid_namespace_knows_who_is_alive(segment: Segment, tmp_path: Path) -> None:
    """Containers that share /dev/shm do not see one another's pids, but they see one another's locks."""
    left = leave_behind(tmp_path)
    script = "import sys; from penstock.shm import sweep; print(*sweep(sys.argv[1]))"
    done = python(script, str(tmp_path), before=unshare("--pid", "--fork"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(left)
    assert (tmp_path / segment.name).exists()


def test_a_lock_is_held_as_long_as_any_copy_of_the_descriptor_is_open(tmp_path: Path) -> None:
    """So a process that was given the owner's descriptor counts as the owner until it closes it."""
    segment = Segment.create(SIZE, directory=str(tmp_path))
    copy, path = os.dup(segment.fd), tmp_path / segment.name
    saved = path.with_name(f"penstock-{'4' * 40}")
    path.rename(saved)
    segment.close()
    gc.collect()
    assert sweep(str(tmp_path)) == []
    os.close(copy)
    assert sweep(str(tmp_path)) == [str(saved)]


def test_the_mapping_is_shared_memory(segment: Segment, tmp_path: Path) -> None:
    """What anybody writes through the file, we see."""
    with (tmp_path / segment.name).open("r+b") as file, mmap.mmap(file.fileno(), 0) as other:
        other[-1] = 3
        assert segment.buf[-1] == 3
