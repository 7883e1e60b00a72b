"""The memory benchmark's own eyes: it sees what a tree of processes holds, and not what it merely maps."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from penstock.bench.memory import Watch, held
from penstock.tests.waiting import DEADLINE

_SIZE = 64 << 20


def test_memory_that_is_touched_is_seen() -> None:
    """Anonymous and shared pages both count once they are written to."""
    before = held(os.getpid())
    with mmap.mmap(-1, _SIZE) as shared:
        shared.write(b"x" * _SIZE)
        after = held(os.getpid())
    assert 0.9 * _SIZE < after - before < 1.5 * _SIZE + (8 << 20)


def test_a_mapped_file_is_not_counted(tmp_path: Path) -> None:
    """Its pages belong to the cache, as those of libraries do."""
    path = tmp_path / "large"
    path.write_bytes(bytes(_SIZE))
    before = held(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert sum(view[:: mmap.PAGESIZE]) == 0
        after = held(os.getpid())
    assert after - before < _SIZE // 2


def test_a_process_that_is_gone_is_an_os_error() -> None:
    """The watch passes it by."""
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(pid, 0)
    with pytest.raises(OSError, match=str(pid)):
        held(pid)


def test_the_watch_keeps_the_peak_of_a_process_that_is_there() -> None:
    """At least one sample is taken, and what is held now is not more than the peak by much."""
    with Watch(os.getpid()) as watch:
        watch.sampled.wait(DEADLINE)
    assert watch.own > 0
    assert watch.total >= watch.own
