"""A worker's own side, for kinds of work that take one task after the other: all but what is done with a task."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ...shm import Ring, SlotLayout, SlotView, map_payload, recv_frame_fds, send_frame
from ...shm.protocol import DONE, HEAD, LAYOUT, decode_json, encode_json


@dataclass(frozen=True, slots=True)
class Task:
    """A task, as its worker gets it.

    Attributes:
        size: items in it.
        body: what the kind's codec says of them: what follows the head, or came beside it.
        arrays: the arrays of its slot, to be filled.
        mark: says which item is being worked on, so that it is known should this process die of it; None: all of them.
    """

    size: int
    body: memoryview
    arrays: SlotView
    mark: Callable[[int | None], None]


def serve(sock: socket.socket, layout: SlotLayout, work: Callable[[Task], tuple[int, bytes]]) -> None:
    """Do tasks until the parent closes the socket.

    Args:
        sock: as the entry point of a worker gets it.
        layout: what its slots look like.
        work: does a task; returns how many rows of the slot it filled, and what the kind's codec reads after the head.
            What it raises ends the process: what is wrong with an item is to be in the answer.
    """
    send_frame(sock, encode_json(LAYOUT, layout.to_json()))
    first = recv_frame_fds(sock)
    if first is None:
        return
    frame, fds = first
    ring = Ring.attach(fds[0], layout, decode_json(frame)["slots"])
    while (message := recv_frame_fds(sock)) is not None:
        frame, fds = message
        _, slot, generation, size = HEAD.unpack_from(frame)
        body = map_payload(fds[0]) if fds else memoryview(frame)[HEAD.size :]
        ring.begin(slot, generation)
        rows, answer = work(Task(size, body, ring.view(slot), partial(ring.mark, slot)))
        ring.commit(slot, generation, rows)
        send_frame(sock, HEAD.pack(DONE, slot, generation, rows), answer)
