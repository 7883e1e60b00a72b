"""A download that is not complete: its bytes, and beside them a note that says what they are the beginning of."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ...durable import put
from ...errors import DownloadError, TooLargeError
from .workspace import META, NOTE, PART, VIDEO, read_json, write_json

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class PartFile:
    """The beginning of a video, to be written on. One process at a time has it.

    Bytes are taken up again only where a strong ETag says of what they are the beginning, and only since this machine
    was last started: after a power failure a file may be longer than what was written of it.

    Args:
        folder: of the video.
        max_bytes: of it.

    Attributes:
        have: bytes so far.
        tag: the ETag of the whole file, as the server writes it; empty where there is none.
        total: bytes of the whole file; None where that is not known.

    Raises:
        DownloadError: another process writes it.
        OSError: the disk refuses.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._fd = os.open(folder / PART, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise _busy() from None
        self.have, self.tag, self.total = self._beginning()

    @property
    def path(self) -> Path:
        """Where its bytes are while it is not whole."""
        return self._folder / PART

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What cannot be gone on with is removed. No error of that takes the place of a failure."""
        try:
            if not self.tag:
                with suppress(OSError):
                    self.discard()
        finally:
            os.close(self._fd)

    def begin(self, tag: str | None, total: int | None) -> None:
        """Begin at the start.

        Args:
            tag: ETag that the server gave; a weak one says nothing about bytes.
            total: bytes of the whole, where that is known.

        Raises:
            TooLargeError: the whole is larger than allowed.
            OSError: the disk refuses.
        """
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.have, self.total = 0, total
        self.tag = tag if tag and tag.startswith('"') else ""
        self._check(total or 0)
        if self.tag:
            write_json(self._folder / NOTE, {"tag": self.tag, "total": total, "boot": _boot()})
        else:
            self._forget()

    def go_on(self, at: int, total: int | None) -> None:
        """Write on from this byte; what lies behind it goes.

        Raises:
            TooLargeError: the whole is larger than allowed.
            OSError: the disk refuses.
        """
        os.ftruncate(self._fd, at)
        os.lseek(self._fd, at, os.SEEK_SET)
        self.have, self.total = at, total
        self._check(total or 0)

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            TooLargeError: it is more than allowed now.
            OSError: the disk refuses; `have` says what was written.
        """
        self._check(self.have + len(data))
        view = memoryview(data)
        while view:
            done = os.write(self._fd, view)
            view, self.have = view[done:], self.have + done

    def head(self, size: int) -> bytes:
        """Its first bytes."""
        return os.pread(self._fd, size, 0)

    def discard(self) -> None:
        """Nothing of it can be used.

        Raises:
            OSError: the disk refuses.
        """
        self.tag = ""
        with suppress(FileNotFoundError):
            (self.path).unlink()
        self._forget()

    def finish(self, meta: dict[str, Any]) -> Path:
        """It is whole: write down what is known of it, and give it its name. Both are on the medium then.

        Raises:
            DownloadError: another process has begun it anew.
            OSError: the disk refuses.
        """
        if not os.path.samestat(os.fstat(self._fd), self.path.lstat()):
            raise _busy()
        write_json(self._folder / META, meta)
        put(self.path, self._folder / VIDEO)
        self._forget()
        return self._folder / VIDEO

    def _beginning(self) -> tuple[int, str, int | None]:
        """What an earlier attempt has left that can be gone on with."""
        have, note = os.fstat(self._fd).st_size, read_json(self._folder / NOTE)
        match note:
            case {"tag": str(tag), "total": (int() | None) as total, "boot": boot} if tag and have and boot == _boot():
                if total is None or have < total:
                    return have, tag, total
                return total - 1, tag, total  # whole, but nobody has said so: its last byte is asked for again
            case _:
                return 0, "", None

    def _check(self, nbytes: int) -> None:
        if nbytes > self._max_bytes:
            self.tag = ""  # nobody goes on with it
            raise TooLargeError(f"the video has at least {nbytes} bytes; max_file_bytes allows {self._max_bytes}")

    def _forget(self) -> None:
        with suppress(FileNotFoundError):
            (self._folder / NOTE).unlink()


def _busy() -> DownloadError:
    error = DownloadError("another process downloads it")
    error.errno = errno.EAGAIN
    return error


def _boot() -> str:
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return ""
