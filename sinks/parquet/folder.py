"""A data set in a folder of this machine: renamed into it, and claimed by hard links, which no two processes get."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...descriptors import CloseOnFork
from ...durable import DISK, create_file, replace_file, shut, sync_path
from ...errors import SinkError
from .place import STAGING, Hold, PartFile, Place, Sealed, Stored, staging

_LOCK = "lock"
_UNFINISHED = re.compile(r"_.+\.[0-9a-f]{32}")
"""A file that its writer has not given its name yet."""


class FolderPlace(Place):
    """A folder; made when something is put into it.

    Args:
        folder: its path.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._named = Path(folder)
        self._folder = self._named.absolute()

    @property
    def uri(self) -> str:
        return str(self._folder)

    @property
    def local_path(self) -> Path:
        return self._named

    def read(self, name: str) -> bytes | None:
        with _errors(self.uri):
            try:
                return (self._folder / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def open(self, name: str) -> Path:
        path = self._folder / name
        if not path.is_file():
            raise SinkError(f"{self.uri}: {name} is not there any more")
        return path

    def put(self, name: str, data: Any) -> None:
        with _errors(self.uri):
            self._write(self._folder / name, data)

    def create(self, name: str, data: bytes) -> bool:
        with _errors(self.uri):
            target = self._folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            return create_file(target, data, temporary=_unfinished(target), mode=0o666)

    def replace(self, name: str, data: bytes, was: bytes | None) -> bool:
        if was is None:
            return self.create(name, data)
        if self.read(name) != was:
            return False
        self.put(name, data)  # between the two nobody else does this: who calls it has claimed the folder
        return True

    def delete(self, names: Iterable[str]) -> None:
        with _errors(self.uri):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)

    def stored(self, under: str = "") -> list[Stored]:
        with _errors(self.uri):
            found: list[Stored] = []
            for parent, _, names in os.walk(self._folder / under):
                for path in (Path(parent, name) for name in names):
                    with suppress(FileNotFoundError):
                        found.append(Stored(path.relative_to(self._folder).as_posix(), path.stat().st_size))
            return sorted(found, key=lambda each: each.name)

    def begin(self, job: str, name: str) -> PartFile:
        with _errors(self.uri):
            path = self._folder / staging(job, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            return _FolderPart(path, self.uri)

    def complete(self, job: str, part: Sealed) -> None:
        with _errors(self.uri):
            target = self._folder / part.name
            with suppress(FileNotFoundError):  # shown before
                (self._folder / staging(job, part.name)).replace(target)
            if not target.is_file() or target.stat().st_size != part.nbytes:
                raise SinkError(f"{self.uri}: {part.name} is not there any more")
            sync_path(self._folder)

    def sweep(self, job: str) -> None:
        with _errors(self.uri):
            shutil.rmtree(self._folder / staging(job), ignore_errors=True)
            with suppress(OSError):  # another job's
                (self._folder / STAGING).rmdir()

    def hold(self, job: str) -> Hold:
        hold = self.take(job)
        if hold is None:
            raise SinkError(f"{self.uri} is open in another process for this job; wait for it")
        try:
            self._try_link(self._folder / staging(job, _LOCK))
        except BaseException:
            hold.close()
            raise
        return hold

    def _try_link(self, path: Path) -> None:
        """See now, and not when all rows are there, whether one of two publishers will win."""
        probe = _unfinished(path)
        try:
            os.link(path, probe)
        except OSError as error:
            raise SinkError(
                f"{self.uri}: no hard link can be made there ({error.strerror}), by which one of two publishers wins:"
                " take a folder on another file system"
            ) from error
        probe.unlink()

    def take(self, job: str) -> Hold | None:
        path = self._folder / staging(job, _LOCK)
        with _errors(self.uri):
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                lock = CloseOnFork(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                if not _locked(lock.fd):
                    lock.close()
                    return None
                if path.exists() and os.path.samestat(os.fstat(lock.fd), path.stat()):
                    return _Lock(lock)
                lock.close()  # swept away between the two: that was the lock of a file that has no name any more

    def is_live(self, job: str) -> bool:
        with _errors(self.uri):
            try:
                lock = os.open(self._folder / staging(job, _LOCK), os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                return False
            try:
                return not _locked(lock)
            finally:
                os.close(lock)

    def tidy(self) -> None:
        with _errors(self.uri):
            for path in self._folder.glob("_*"):
                if _UNFINISHED.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def _write(self, path: Path, data: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shut(DISK, replace_file(str(path), [data], temporary=str(_unfinished(path)), mode=0o666))
        sync_path(path.parent)


def _unfinished(path: Path) -> Path:
    """A name of its own in the same folder, which readers pass by."""
    return path.with_name(f"_{path.name}.{uuid4().hex}")


class _FolderPart(PartFile):
    """A file in the staging folder, renamed when it is shown."""

    def __init__(self, path: Path, uri: str) -> None:
        super().__init__()
        self._path, self._uri = path, uri
        self._file = open(path, "wb")  # noqa: SIM115  (closed by seal or abandon)

    def _append(self, data: memoryview) -> None:
        with _errors(self._uri):
            self._file.write(data)

    def seal(self, rows: int) -> Sealed:
        with _errors(self._uri):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            sync_path(self._path.parent)
        return Sealed(self._path.name, rows, self._nbytes, self._sha256.hexdigest())

    def abandon(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class _Lock:
    """A lock of the kernel's, which no dead process keeps."""

    def __init__(self, lock: CloseOnFork) -> None:
        self._lock = lock

    def check(self) -> None:
        """Nobody can have taken it over."""

    def close(self) -> None:
        self._lock.close()


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _errors(uri: str) -> Generator[None]:
    """What the disk refuses becomes an error that says where, why, and what to do."""
    try:
        yield
    except OSError as error:
        raise SinkError(
            f"{uri} cannot be written: {error.strerror or error}; what is there stays: free some space or mend the"
            " disk, then run the job again and it goes on"
        ) from error
