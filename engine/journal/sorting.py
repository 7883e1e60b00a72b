"""Sorting a listing that does not fit into memory: runs that do, in files without names, then a merge of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from heapq import merge
from itertools import islice
from tempfile import TemporaryFile
from typing import Final

from .disk import Disk, writing
from .entries import Entry
from .listing_diff import SORTED, order_of
from .snapshot import Snapshot, snapshot_pieces

_RUN: Final = 2**17
"""Entries of a run: 120 MB in memory with what they are sorted by. While they are merged, each run has 0.35 MB."""


def in_order(disk: Disk, folder: str, entries: Iterable[Entry], run: int = _RUN) -> Iterator[Entry]:
    """The entries in the order of their names' bytes, part by part; those of the same name as they came.

    Args:
        disk: of the folder.
        folder: where the runs lie. They have no names, so a process that dies leaves nothing behind.
        entries: in any order.
        run: entries that are sorted in memory.

    Raises:
        JournalDiskError: the disk refused.
    """
    key = partial(order_of, order=SORTED)
    remaining = iter(entries)
    with ExitStack() as stack:
        runs: list[Snapshot] = []
        while some := sorted(islice(remaining, run), key=key):
            if not runs and len(some) < run:  # all of them
                yield from some
                return
            with writing(folder), TemporaryFile(dir=folder) as file:
                file.writelines(snapshot_pieces(some))
                file.flush()
                runs.append(Snapshot(disk, folder, os.dup(file.fileno())))
            stack.callback(runs[-1].close)
        del some
        yield from merge(*runs, key=key)
