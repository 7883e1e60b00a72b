"""One supervised pool of processes for whatever runs outside of this one. See README.md here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .callables import WorkerPool
    from .kind import WorkerKind
    from .picture_server import warm_start
    from .pictures import PreprocessPool, SlotBatch
    from .pool import SlotPool
else:
    # The fork server is asked for before anything large is imported, so that both go on at once.
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "callables": ("WorkerPool",),
            "kind": ("WorkerKind",),
            "picture_server": ("warm_start",),
            "pictures": ("PreprocessPool", "SlotBatch"),
            "pool": ("SlotPool",),
        },
    )

__all__ = ["PreprocessPool", "SlotBatch", "SlotPool", "WorkerKind", "WorkerPool", "warm_start"]
