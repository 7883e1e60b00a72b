"""The ground floor: shared-memory segments, rings of slots, their books, and the processes that write into them.

Knows nothing of pictures, gevent or JAX. See README.md in this folder.
"""

from .child import Child
from .frames import FRAME_LIMIT, FrameReader, frame_pieces, recv_frame, recv_frame_fds, send_frame, send_frame_fds
from .janitor import Orphan, orphans, sweep
from .layout import Place, SlotLayout, SlotView
from .ring import Ring
from .segment import Segment, free_bytes, no_room, require_room
from .slots import Grant, SlotState, SlotTable
from .zygote import Zygote

__all__ = [
    "FRAME_LIMIT",
    "Child",
    "FrameReader",
    "Grant",
    "Orphan",
    "Place",
    "Ring",
    "Segment",
    "SlotLayout",
    "SlotState",
    "SlotTable",
    "SlotView",
    "Zygote",
    "frame_pieces",
    "free_bytes",
    "no_room",
    "orphans",
    "recv_frame",
    "recv_frame_fds",
    "require_room",
    "send_frame",
    "send_frame_fds",
    "sweep",
]
