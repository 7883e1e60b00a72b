"""Every operation on a file, in one small object: tests put one in its place whose N-th operation fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ...errors import JournalDiskError

TEMPORARY = ".tmp"
"""How the name of a file ends that is not complete: it does not exist for readers, and the next writer removes it."""


class Disk:
    """The operating system's files. Every method raises the OSError it meets."""

    def make_folder(self, path: str) -> None:
        """Make a folder (mode 0700) if it is not there, and its parents."""
        with suppress(FileExistsError):
            os.makedirs(path, 0o700)  # noqa: PTH103  (paths are text here)

    def names(self, folder: str) -> list[str]:
        """What lies in a folder."""
        return os.listdir(folder)  # noqa: PTH208

    def open(self, path: str, flags: int) -> int:
        """A descriptor; a new file has mode 0600. Never follows a link in the last part of the path."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def size(self, fd: int) -> int:
        """Bytes in the file."""
        return os.fstat(fd).st_size

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """So many bytes; fewer only at the end of the file."""
        data = os.pread(fd, size, offset)
        while len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
            data += more
        return data

    def write(self, fd: int, data: bytes, offset: int) -> None:
        """All of it. One system call, unless the kernel takes less than all."""
        view = memoryview(data)
        while view:
            done = os.pwrite(fd, view, offset)
            view, offset = view[done:], offset + done

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Back only when the file's bytes are on the medium."""
        os.fsync(fd)

    def sync_folder(self, path: str) -> None:
        """Back only when the names in the folder are on the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: str, new: str) -> None:
        """Give a complete file its name, in place of whatever had it."""
        Path(old).rename(new)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        Path(path).unlink()

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)


_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT})
"""Errors of a place that is the wrong one, and of no disk that is full or broken."""


@contextmanager
def writing(path: str) -> Generator[None]:
    """What the disk refuses becomes an error that says where, why, and that nothing is lost.

    Raises:
        JournalDiskError: the block met an OSError.
    """
    try:
        yield
    except JournalDiskError:
        raise
    except OSError as error:
        raise _refused(error, f"{path}: cannot be written: {error.strerror or error}; {_way_on(error)}") from error


@contextmanager
def reading(path: str) -> Generator[None]:
    """What the disk does not give becomes an error that says where and why.

    Raises:
        JournalDiskError: the block met an OSError.
    """
    try:
        yield
    except JournalDiskError:
        raise
    except OSError as error:
        raise _refused(error, f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def _way_on(error: OSError) -> str:
    if error.errno in _FORBIDDEN:
        return "the books of a job need a folder that may be written to: another --job folder, or other permissions"
    return "what was recorded before is safe: free some space or mend the disk, then run the job again and it resumes"


def _refused(error: OSError, message: str) -> JournalDiskError:
    refused = JournalDiskError(message)
    refused.errno = error.errno
    return refused


def shut(disk: Disk, fd: int) -> None:
    """Close a descriptor. What a close reports is no news: whatever must last has been synced before."""
    with suppress(OSError):
        disk.close(fd)


def read_file(disk: Disk, path: str) -> bytes:
    """A small file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    fd = disk.open(path, os.O_RDONLY)
    try:
        return disk.read(fd, disk.size(fd), 0)
    finally:
        shut(disk, fd)


def replace_file(disk: Disk, path: str, pieces: Iterable[bytes]) -> int:
    """Write a file so that it is there whole or not at all; its name is durable after `Disk.sync_folder`.

    Returns:
        A descriptor of the file, to read and write it.

    Raises:
        JournalDiskError: the disk refused; what had the name still has it.
    """
    with writing(path):
        fd = disk.open(path + TEMPORARY, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        end = 0
        for piece in pieces:
            with writing(path):
                disk.write(fd, piece, end)
            end += len(piece)
        with writing(path):
            disk.sync(fd)
            _rename(disk, path)
    except BaseException:
        shut(disk, fd)
        with suppress(OSError):
            disk.unlink(path + TEMPORARY)
        raise
    return fd


def _rename(disk: Disk, path: str) -> None:
    """A rename that reports an error may still have happened: then it has, or two files would claim to be the last."""
    try:
        disk.rename(path + TEMPORARY, path)
    except OSError:
        if os.path.lexists(path + TEMPORARY) or not os.path.lexists(path):
            raise
