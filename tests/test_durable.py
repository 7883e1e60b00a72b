"""Files that are there whole or not at all, whoever writes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.durable import Disk, replace_file, shut, write_text


class Refusing(Disk):
    """Refuses one kind of operation."""

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def _ask(self, operation: str) -> None:
        if operation == self.operation:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, fd: int, data: bytes, offset: int) -> None:
        super().write(fd, data[:1], offset)
        self._ask("write")
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._ask("sync")

    def rename(self, old: str, new: str) -> None:
        self._ask("rename")
        super().rename(old, new)


@pytest.mark.parametrize("operation", ["write", "sync", "rename"])
def test_what_is_refused_leaves_what_was_there(tmp_path: Path, operation: str) -> None:
    """And no half file beside it."""
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(OSError, match="No space left"):
        replace_file(str(path), [b"after"], disk=Refusing(operation))
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "before"


def test_only_what_the_disk_refuses_is_the_callers_error(tmp_path: Path) -> None:
    """What makes the bytes may meet errors of its own."""

    @contextmanager
    def refused() -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError("the disk") from error

    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise OSError("the source")

    with pytest.raises(OSError, match="the source"):
        replace_file(str(tmp_path / "a"), pieces(), refused=refused)
    with pytest.raises(ValueError, match="the disk"):
        replace_file(str(tmp_path / "a"), [b"a"], disk=Refusing("sync"), refused=refused)
    assert not [*tmp_path.iterdir()]


def test_a_file_of_the_engines_own_is_private_and_one_for_people_is_not(tmp_path: Path) -> None:
    """As the user's umask says."""
    umask = os.umask(0o022)
    try:
        shut(Disk(), replace_file(str(tmp_path / "own"), [b"a", b"b"]))
        write_text(tmp_path / "report", "ü")
    finally:
        os.umask(umask)
    assert (tmp_path / "own").read_bytes() == b"ab"
    assert (tmp_path / "report").read_text(encoding="utf-8") == "ü"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("own", "report")] == [0o600, 0o644]


def test_an_error_of_a_file_for_people_names_it(tmp_path: Path) -> None:
    """And what to do."""
    with pytest.raises(OSError, match=r"cannot be written .*free some space") as caught:
        write_text(tmp_path / "gone" / "report", "")
    assert caught.value.filename == str(tmp_path / "gone" / "report")
