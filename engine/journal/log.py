"""The journal's file as its one writer sees it: append, make durable, replace by a shorter one that says the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from .blocks import MAX_PAYLOAD, BlockKind, pack, title
from .disk import Disk, replace_file, shut, writing
from .reading import SYNCED, WHAT, Event, Head

_BLOCK_RECORDS: Final = 1 << 15


def of_records(records: NDArray[np.void]) -> bytes:
    """Outcomes as blocks."""
    return b"".join(
        pack(BlockKind.RANGES, records[start : start + _BLOCK_RECORDS].tobytes())
        for start in range(0, len(records), _BLOCK_RECORDS)
    )


def of_event(event: Event) -> bytes:
    """An event as a block.

    Raises:
        ConfigError: it is too large.
    """
    payload = json.dumps(event).encode()
    if len(payload) > MAX_PAYLOAD:
        raise ConfigError(f"an event of {len(payload)} bytes: at most {MAX_PAYLOAD} fit into the journal")
    return pack(BlockKind.EVENT, payload)


class Log:
    """An open journal. Appends are in the page cache when they return: the death of the process cannot lose them.

    Not thread-safe, but `sync` may run beside `append`.

    Args:
        disk: where it lies.
        path: for messages.
        fd: a descriptor, which it then owns.
        end: bytes that are good; what follows is cut off before anything is appended.
        durable: bytes known to be on the medium.
        clean: nothing follows them.
    """

    def __init__(self, disk: Disk, path: str, fd: int, end: int, durable: int = 0, clean: bool = False) -> None:
        self.path = path
        self._disk, self._fd = disk, fd
        self._end = end
        self._durable = durable
        self._promised = 0
        self._clean = clean
        self._trusted = True

    @classmethod
    def create(
        cls, disk: Disk, path: str, head: Head, events: Iterable[Event], runs: Iterable[NDArray[np.void]]
    ) -> Log:
        """Write a new journal, whole or not at all; its name is durable after `Disk.sync_folder`.

        Raises:
            JournalDiskError: the disk refused; there is no such file then.
        """
        sizes: list[int] = []
        fd = replace_file(disk, path, _pieces(head, events, runs, sizes))
        return cls(disk, path, fd, sum(sizes), sum(sizes), clean=True)

    @property
    def size(self) -> int:
        """Bytes that are good."""
        return self._end

    @property
    def trusted(self) -> bool:
        """False once a sync has failed: the kernel may have dropped pages, and a later sync would not say so."""
        return self._trusted

    def append(self, blocks: bytes) -> None:
        """Append blocks, by one write.

        Raises:
            JournalDiskError: the disk refused. The file is as before to all readers, and to the next append.
        """
        durable = self._durable  # `sync` may move it meanwhile
        if durable > self._promised:
            blocks = _promise(durable) + blocks
        self.mend()
        self._clean = False
        with writing(self.path):
            self._disk.write(self._fd, blocks, self._end)
        self._clean = True
        self._end += len(blocks)
        self._promised = durable

    def mend(self) -> None:
        """Cut off what a failed or killed write left behind the last good block.

        Raises:
            JournalDiskError: the disk refused.
        """
        if not self._clean:
            with writing(self.path):
                self._disk.truncate(self._fd, self._end)
            self._clean = True

    def sync(self) -> None:
        """Back only when all that was appended before is on the medium.

        Raises:
            JournalDiskError: the disk refused; the file is not `trusted` any more.
        """
        end = self._end
        if end == self._durable:
            return
        with writing(self.path):
            try:
                self._disk.sync(self._fd)
            except OSError:
                self._trusted = False
                raise
        if self._trusted:
            self._durable = end

    def close(self) -> None:
        """Close the file, without making it durable. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            shut(self._disk, fd)


def _pieces(head: Head, events: Iterable[Event], runs: Iterable[NDArray[np.void]], sizes: list[int]) -> Iterator[bytes]:
    """The bytes of a new journal. It is synced before it gets its name, so its last block may say so."""

    def counted(piece: bytes) -> bytes:
        sizes.append(len(piece))
        return piece

    yield counted(title(WHAT) + pack(BlockKind.HEAD, json.dumps(asdict(head)).encode()))
    for event in events:
        yield counted(of_event(event))
    for records in runs:
        if len(records):
            yield counted(of_records(records))
    yield counted(_promise(sum(sizes)))


def _promise(durable: int) -> bytes:
    return pack(BlockKind.SYNCED, SYNCED.pack(durable))
