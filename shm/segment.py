"""One named POSIX shared-memory segment: reserved, private, unguessable, and gone when its owner is gone.

Not ``multiprocessing.shared_memory``: on Python 3.11 any process that attaches and exits destroys the segment for all
(CPython #82300), and nothing there reserves pages or notices that an owner is dead.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
from pathlib import Path
from typing import Self

from ..descriptors import CloseOnFork
from ..errors import SharedMemoryError, SharedMemoryFullError
from .janitor import DIRECTORY, PREFIX, sweep

_ATTEMPTS = 8
"""Tries at a name in the way of making a segment that can lose a race (`_create_named`)."""


class Segment:
    """One named segment of shared memory, mapped.

    It never changes its size, and its name is never used again: a server that has it mapped would die of SIGBUS after a
    truncation, and read old memory without any error after the name was reused.

    Attributes:
        name: ``penstock-<160 random bits>``; "" for an attached one. Triton knows it as ``"/" + name``.
        nbytes: its size.
    """

    def __init__(self, mapping: mmap.mmap, path: str = "", file: CloseOnFork | None = None) -> None:
        self.nbytes = len(mapping)
        self.name = os.path.basename(path)
        self._path = path
        self._file = file
        self._owner = os.getpid()
        self._buf: memoryview | None = memoryview(mapping)

    @classmethod
    def create(cls, nbytes: int, *, directory: str = DIRECTORY) -> Self:
        """Make a segment, with all its pages reserved, readable and writable by this user only (0600).

        What dead owners left in the directory is swept first.

        Args:
            nbytes: size in bytes.
            directory: where; a tmpfs.

        Raises:
            SharedMemoryFullError: there is no room for it.
            SharedMemoryError: the directory cannot hold a segment at all.
        """
        require_room(nbytes, directory)
        try:
            file, path = _create_unnamed(nbytes, directory) or _create_named(nbytes, directory)
            try:
                return cls(_map(path, nbytes), path, file)
            except BaseException:
                Path(path).unlink(missing_ok=True)
                file.close()
                raise
        except SharedMemoryError:
            raise
        except OSError as error:
            if error.errno == errno.ENOSPC:  # somebody was faster since we looked
                raise SharedMemoryFullError(no_room(nbytes, directory)) from error
            raise SharedMemoryError(f"cannot make a segment of {nbytes:,} bytes in {directory}: {error}") from error

    @classmethod
    def attach(cls, fd: int, nbytes: int) -> Self:
        """Map a segment whose file descriptor came over a socket. Takes the descriptor over and closes it.

        Raises:
            SharedMemoryError: it is not as large as it should be.
        """
        try:
            size = os.fstat(fd).st_size
            if size < nbytes:
                raise SharedMemoryError(
                    f"the segment has {size:,} bytes, the layout needs {nbytes:,}: not the same ring"
                )
            return cls(_map(f"/proc/self/fd/{fd}", nbytes))
        finally:
            os.close(fd)

    @property
    def fd(self) -> int:
        """The owner's open file, which holds the lock; whoever gets a copy over a socket can attach.

        -1 for an attached one, once closed, and in a fork of the owner, where what is mapped stays so.
        """
        return self._file.fd if self._file else -1

    @property
    def buf(self) -> memoryview:
        """Its bytes, page aligned. Views of it stay valid even after ``close``; the memory goes when the last one does.

        Raises:
            SharedMemoryError: the segment is closed.
        """
        if self._buf is None:
            raise SharedMemoryError("this segment is closed")
        return self._buf

    def unlink(self) -> None:
        """Take the name away: nobody new can open it by name, mappings and ``fd`` stay good. Idempotent.

        A copy of the owner in a forked process takes nothing away.
        """
        path, self._path = self._path, ""
        if path and self._owner == os.getpid():
            Path(path).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmap, unlink if it is ours, let go of the lock. Idempotent. Views keep the memory until they die."""
        self.unlink()
        # Let go, never unmap by hand: numpy.ndarray(buffer=...) gives its claim on the buffer back at once, so that
        # mmap.close() sees no views and takes the memory from under them (a segmentation fault, seen with numpy 2.4).
        # They do keep a reference, and the mapping goes with the last one.
        self._buf = None
        if self._file:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_room(nbytes: int, directory: str = DIRECTORY) -> None:
    """Make sure that a directory has room for so many bytes, once dead owners' segments are swept.

    Raises:
        SharedMemoryFullError: it has not; says how much is free and what to set.
        SharedMemoryError: there is no such directory.
    """
    sweep(directory)
    if nbytes > free_bytes(directory):
        raise SharedMemoryFullError(no_room(nbytes, directory))


def free_bytes(directory: str = DIRECTORY) -> int:
    """Bytes that are free in a directory now.

    Raises:
        SharedMemoryError: there is no such directory.
    """
    try:
        status = os.statvfs(directory)
    except OSError as error:
        raise SharedMemoryError(f"{directory} cannot hold shared memory: {error}") from error
    return status.f_bavail * status.f_frsize


def no_room(nbytes: int, directory: str = DIRECTORY) -> str:
    """That a directory has no room for so many bytes: needed, free, and what to set."""
    return (
        f"{directory} has no room: {nbytes / 2**20:,.1f} MiB needed, {free_bytes(directory) / 2**20:,.1f} MiB free. "
        f"Lower workers, slots, batch_size or image_size, or choose a smaller dtype; or make {directory} larger "
        f"(mount -o remount,size=..., docker run --shm-size=..., a memory-backed emptyDir in Kubernetes)"
    )


def _path(directory: str) -> str:
    return os.path.join(directory, PREFIX + secrets.token_hex(20))


def _map(path: str, nbytes: int) -> mmap.mmap:
    """Map a file, opened anew: a mapping keeps its open file, and would keep the lock of the owner's.

    In whatever process has attached it, and in forks of the owner, which have all its mappings.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, nbytes)
    finally:
        os.close(fd)


def _create_unnamed(nbytes: int, directory: str) -> tuple[CloseOnFork, str] | None:
    """Reserve and lock it first, name it last: nobody sees it unlocked. None where the system cannot do that."""
    try:
        file = CloseOnFork(os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            return None
        raise
    try:
        _reserve(file.fd, nbytes)
        path = _path(directory)
        try:
            _give_name(file.fd, path)
        except (FileNotFoundError, PermissionError):  # no /proc, or one that hides it
            file.close()
            return None
    except BaseException:
        file.close()
        raise
    return file, path


def _give_name(fd: int, path: str) -> None:
    directory = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Without a descriptor of a directory CPython calls link(2), which links the link in /proc instead of the file.
        os.link(f"/proc/self/fd/{fd}", os.path.basename(path), dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def _create_named(nbytes: int, directory: str) -> tuple[CloseOnFork, str]:
    """The old way: for a moment there is a name without a lock, so somebody may sweep it; then try another."""
    for _ in range(_ATTEMPTS):
        path = _path(directory)
        file = CloseOnFork(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            _reserve(file.fd, nbytes)
        except BlockingIOError:
            file.close()  # a sweeper has it, and removes it
            continue
        except BaseException:
            Path(path).unlink(missing_ok=True)
            file.close()
            raise
        if os.fstat(file.fd).st_nlink:
            return file, path
        file.close()
    raise SharedMemoryError(f"cannot keep a name in {directory}: it is swept faster than it can be locked")


def _reserve(fd: int, nbytes: int) -> None:
    """Lock it and reserve every page: a full tmpfs is an error here, and would be a SIGBUS at the first write later."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.fchmod(fd, 0o600)  # whatever the umask says
    os.posix_fallocate(fd, 0, nbytes)
