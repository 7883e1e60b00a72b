"""The ground floor: shared-memory segments, rings of slots, their books, and the processes that write into them.

Knows nothing of pictures, gevent or JAX. Imports NumPy only where there are arrays: the workers' fork server is started
before it is, and everybody's imports go on beside each other. See README.md in this folder.
"""

from __future__ import annotations

from .child import Child
from .frames import FRAME_LIMIT, FrameReader, frame_pieces, recv_frame, recv_frame_fds, send_frame, send_frame_fds
from .janitor import Orphan, orphans, sweep
from .layout import ArraySpec, Place, SlotLayout, SlotView
from .payload import Payload, flat, map_payload, nbytes_of
from .ring import Ring
from .segment import Segment, free_bytes, no_room, require_room
from .slots import Grant, SlotState, SlotTable
from .zygote import Zygote, refuse_fork

__all__ = [
    "FRAME_LIMIT",
    "ArraySpec",
    "Child",
    "FrameReader",
    "Grant",
    "Orphan",
    "Payload",
    "Place",
    "Ring",
    "Segment",
    "SlotLayout",
    "SlotState",
    "SlotTable",
    "SlotView",
    "Zygote",
    "flat",
    "frame_pieces",
    "free_bytes",
    "map_payload",
    "nbytes_of",
    "no_room",
    "orphans",
    "recv_frame",
    "recv_frame_fds",
    "refuse_fork",
    "require_room",
    "send_frame",
    "send_frame_fds",
    "sweep",
]
