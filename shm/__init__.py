"""The ground floor: shared-memory segments, rings of slots, their books, and the processes that write into them.

Knows nothing of pictures, gevent or JAX. See README.md in this folder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .child import Child
from .frames import FRAME_LIMIT, FrameReader, frame_pieces, recv_frame, recv_frame_fds, send_frame, send_frame_fds
from .janitor import Orphan, orphans, sweep
from .payload import Payload, flat, map_payload, nbytes_of
from .segment import Segment, free_bytes, no_room, require_room
from .slots import Grant, SlotState, SlotTable
from .zygote import Zygote

if TYPE_CHECKING:
    from .layout import Place, SlotLayout, SlotView
    from .ring import Ring

_HOMES = {"Place": "layout", "SlotLayout": "layout", "SlotView": "layout", "Ring": "ring"}

__all__ = [
    "FRAME_LIMIT",
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
    "require_room",
    "send_frame",
    "send_frame_fds",
    "sweep",
]


def __getattr__(name: str) -> Any:
    # They import NumPy. The workers' fork server is started without it, and everybody's imports go on beside it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
