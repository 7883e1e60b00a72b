"""Kinds of work that make one row of a slot of each item: all that is left to write is what is done with an item.

::

    def main(sock, argument, fds):  # the entry point: my_module:main
        serve_items(sock, LAYOUT, fill)

    def fill(item, row):  # row: name of an array -> its part for this item
        row["nbytes"][...] = os.stat(item).st_size

    pool = SlotPool(item_kind("my_module:main", LAYOUT), workers=2)

Items are what JSON can say: paths, numbers, lists, dicts.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ...errors import ItemError
from ...shm import SlotLayout
from ...shm.protocol import HEAD, TASK, Message, check_answered, decode_failures, encode_failures
from .kind import WorkerKind
from .serving import Task, serve
from .shared_fork_server import SharedForkServer

_POSITION = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class ItemsDone:
    """What became of a task: row ``i`` of the slot is of the item at ``rows[i]``."""

    slot: int
    generation: int
    rows: Sequence[int]
    failures: Sequence[tuple[int, ItemError]]

    def check(self, size: int) -> None:
        """Make sure that it answers for each of a task's so many items, once.

        Raises:
            WorkerError: it does not.
        """
        check_answered([*self.rows, *(position for position, _ in self.failures)], size)


class JsonCodec:
    """A task is its items as JSON, an answer the positions of its rows and the failures."""

    def encode(self, slot: int, generation: int, items: Sequence[Any]) -> Message:
        """A TASK.

        Raises:
            TypeError: an item is nothing that JSON can say.
        """
        head, body = HEAD.pack(TASK, slot, generation, len(items)), json.dumps(items).encode()
        return Message.of([head], [body])

    def decode(self, frame: bytes) -> ItemsDone:
        """A DONE."""
        _, slot, generation, rows = HEAD.unpack_from(frame)
        end = HEAD.size + rows * _POSITION.size
        positions = [position for (position,) in _POSITION.iter_unpack(frame[HEAD.size : end])]
        return ItemsDone(slot, generation, positions, decode_failures(frame[end:]))

    def describe(self, item: Any) -> str:
        """The item itself."""
        return repr(item)


def item_kind(
    entry: str,
    layout: SlotLayout,
    *,
    settings: bytes = b"",
    preload: Sequence[str] = (),
    item_timeout: float | None = 30.0,
    item: str = "item",
) -> WorkerKind[Any, ItemsDone]:
    """A kind of work whose workers call `serve_items`.

    Args:
        entry: the function that does, ``module:function``; a worker finds it where this process does.
        layout: what a slot looks like.
        settings: what that function gets as its second argument.
        preload: names of modules to import once, before the workers are forked.
        item_timeout: seconds one item may take; then its worker is killed, and the item fails. None: no limit.
        item: what people call one.
    """
    server = SharedForkServer([*preload, __name__], dict)
    return WorkerKind(entry, lambda _: settings, JsonCodec(), layout, server, item_timeout, item)


def serve_items(
    sock: socket.socket, layout: SlotLayout, fill: Callable[[Any, Mapping[str, NDArray[Any]]], object]
) -> None:
    """Be a worker until the parent closes the socket.

    Args:
        sock: as the entry point gets it.
        layout: what a slot looks like, as the kind says it.
        fill: makes one row: called with an item and its part of each array, by name, shaped as the layout says one row
            is. An `ItemError` that it raises is the item's failure; whatever else ends this process, as a crash does,
            and the item is given up at the third time.
    """

    def work(task: Task) -> tuple[int, bytes]:
        rows: list[int] = []
        failures: list[tuple[int, ItemError]] = []
        for position, item in enumerate(json.loads(bytes(task.body))):
            task.mark(position)
            try:
                fill(item, {name: array[len(rows), ...] for name, array in task.arrays.items()})
                rows.append(position)
            except ItemError as error:
                failures.append((position, error))
        task.mark(None)
        return len(rows), b"".join(map(_POSITION.pack, rows)) + encode_failures(failures)

    serve(sock, layout, work)
