"""The job of a storm: the command line as it is, on a disk that fails as the seed says. Run by ``drive``.

``python -m penstock.tests.storm.child SEED RUN embed ...``
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections import Counter
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from penstock.engine.cli.commands import main
from penstock.engine.journal import Disk, folder
from penstock.sinks.dead_letters import DeadLetters
from penstock.tests.storm.seeds import Seed


def embed(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """A model of the user's that takes its time: some pixels of each picture, so the same in any batch."""
    threading.Event().wait(0.004)
    flat = pixels.reshape(len(pixels), -1)
    return np.ascontiguousarray(flat[:, :: flat.shape[1] // 16][:, :16], np.float32) + 1.0


class Storm:
    """Counts the passes of each fault of one run, and fires each at most once."""

    def __init__(self, seed: Seed, run: int) -> None:
        self._seed, self._run = seed, run
        self._passes = Counter[str]()
        self._fired: set[str] = set()
        self._mutex = threading.Lock()

    def fires(self, fault: str) -> bool:
        """Whether it does now."""
        with self._mutex:
            passing = self._passes[fault]
            self._passes[fault] += 1
            fires = fault not in self._fired and self._seed.fires(fault, self._run, passing)
            if fires:
                self._fired.add(fault)
                os.write(2, f"storm: {fault} (operation {passing})\n".encode())
        return fires


class StormyDisk(Disk):
    """The journal's disk."""

    storm: Storm
    full = False

    def write(self, fd: int, data: bytes, offset: int) -> None:
        if self.storm.fires("the disk is full"):
            StormyDisk.full = True
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.storm.fires("a write fails"):
            super().write(fd, data[: len(data) // 2], offset)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.storm.fires("a write is torn"):
            super().write(fd, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        self._may_fail("a sync fails")
        super().sync(fd)

    def rename(self, old: str, new: str) -> None:
        self._may_fail("a rename fails")
        super().rename(old, new)

    def _may_fail(self, fault: str) -> None:
        if self.storm.fires(fault):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def run(arguments: list[str]) -> int:
    """One run of the job; returns its exit status."""
    seed, number, *rest = arguments
    storm = StormyDisk.storm = Storm(Seed.of(int(seed)), int(number))
    write = DeadLetters.write

    def stormy_write(letters: DeadLetters, *args: Any, **fields: Any) -> Any:
        if storm.fires("a letter fails"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(letters.path))
        return write(letters, *args, **fields)

    with patch.object(folder, "Disk", StormyDisk), patch.object(DeadLetters, "write", stormy_write):
        return main(rest)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
