"""Files that are there whole or not at all, also after a power failure: the one way to write them, and what it asks of
the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final

TEMPORARY = ".tmp"
"""How the name of a file ends that is not complete: it does not exist for readers, and the next writer removes it."""


class Disk:
    """The operating system's files. Every method raises the OSError it meets.

    One small object, so that tests can put one in its place whose N-th operation fails.
    """

    def make_folder(self, path: str) -> None:
        """Make a folder (mode 0700) if it is not there, and its parents."""
        with suppress(FileExistsError):
            os.makedirs(path, 0o700)  # noqa: PTH103  (paths are text here)

    def names(self, folder: str) -> list[str]:
        """What lies in a folder."""
        return os.listdir(folder)  # noqa: PTH208

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor; a new file has that mode. Never follows a link in the last part of the path."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

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


DISK: Final = Disk()


def shut(disk: Disk, fd: int) -> None:
    """Close a descriptor. What a close reports is no news: whatever must last has been synced before."""
    with suppress(OSError):
        disk.close(fd)


def replace_file(
    path: str,
    pieces: Iterable[bytes],
    *,
    disk: Disk = DISK,
    temporary: str | None = None,
    mode: int = 0o600,
    refused: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> int:
    """Write a file so that it is there whole or not at all; its name is durable after `Disk.sync_folder`.

    Args:
        path: where it will be.
        pieces: its bytes. An error of whoever makes them passes as it is.
        disk: does it.
        temporary: its path while it is not complete, in the same folder. Default: `path` with `TEMPORARY` behind it.
        mode: of the file.
        refused: a context for each step on the disk, which may make another error of the OSError that it meets.

    Returns:
        A descriptor of the file, to read and write it.

    Raises:
        OSError: the disk refused; what had the name still has it.
    """
    unfinished = temporary or path + TEMPORARY
    with refused():
        fd = disk.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
    try:
        end = 0
        for piece in pieces:
            with refused():
                disk.write(fd, piece, end)
            end += len(piece)
        with refused():
            disk.sync(fd)
            _rename(disk, unfinished, path)
    except BaseException:
        shut(disk, fd)
        with suppress(OSError):
            disk.unlink(unfinished)
        raise
    return fd


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file for people so that nobody ever sees half of it. Its bytes and its name are on the medium then.

    Raises:
        OSError: the disk refuses; names the file.
    """
    target = Path(path)
    own = target.with_name(f".{target.name}.{os.getpid()}")  # several processes may write reports into one folder
    try:
        shut(DISK, replace_file(str(target), [text.encode()], temporary=str(own), mode=0o666))
        DISK.sync_folder(str(target.parent))
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror}); free some space", str(target)) from error


def create_file(path: Path, data: bytes, *, temporary: Path, mode: int = 0o600) -> bool:
    """Write a file unless there is one: of all who try at once one does, and nobody sees less than all of it.

    Args:
        path: where it will be. Its bytes and its name are on the medium then.
        data: its bytes.
        temporary: its path while it is not complete, in the same folder; nobody else's.
        mode: of the file.

    Returns:
        Whether it was written; False where something has the name.

    Raises:
        OSError: the disk refuses, or makes no hard links, which are what only one gets.
    """
    try:
        shut(DISK, replace_file(str(temporary), [data], temporary=str(temporary), mode=mode))
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_path(path.parent)
    return True


def put(unfinished: Path, target: Path) -> None:
    """Give a complete file that somebody else wrote its name. Its bytes and its name are on the medium then.

    Raises:
        OSError: the disk refuses.
    """
    sync_path(unfinished)
    _rename(DISK, str(unfinished), str(target))
    DISK.sync_folder(str(target.parent))


def sync_path(path: Path) -> None:
    """Back only when the bytes of a file, or the names in a folder, are on the medium.

    Raises:
        OSError: the disk refuses, or nothing is there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(disk: Disk, unfinished: str, path: str) -> None:
    """A rename that reports an error may still have happened: then it has, or two files would claim to be the last."""
    try:
        disk.rename(unfinished, path)
    except OSError:
        if os.path.lexists(unfinished) or not os.path.lexists(path):
            raise


class LineFile:
    """A file that lines are appended to (mode 0600). One process, any number of threads. Made with the first line.

    Each line is one `write`, so a killed process leaves at most the last line torn; the next writer starts a new one,
    as does the next line where the disk took only the half of one.

    Args:
        path: of the file. Its folder is made with it.

    Attributes:
        count: Lines written by this object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._mutex = threading.Lock()
        self._descriptor: int | None = None
        self._unsynced = False

    def append(self, line: bytes) -> None:
        """Add a line, with its end. In the file when it returns: safe against the death of the process.

        Raises:
            OSError: it cannot be written; names the file.
        """
        with self._mutex:
            try:
                self._append(line)
            except OSError as error:
                why = f"cannot be written ({error.strerror}); free some space, then run the job again"
                raise OSError(error.errno, why, str(self.path)) from error
            self.count += 1

    def sync(self) -> None:
        """Back only when all lines are on the medium. Costs nothing where there are no new ones.

        Raises:
            OSError: the disk refuses.
        """
        with self._mutex:
            unsynced, self._unsynced = self._unsynced, False
        if not unsynced:
            return
        try:
            sync_path(self.path)
            sync_path(self.path.parent)
        except FileNotFoundError:
            pass  # the user has taken it away
        except OSError:
            self._unsynced = True
            raise

    def close(self) -> None:
        """Sync and close the file. Idempotent; a later line opens it again.

        Raises:
            OSError: the disk refuses the sync; the file is closed nevertheless.
        """
        with self._mutex:
            self._close()
        self.sync()

    def _append(self, line: bytes) -> None:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # close the line that was left torn
        self._unsynced = True
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            self._close()  # the next line looks whether half of this one is there
            raise

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
