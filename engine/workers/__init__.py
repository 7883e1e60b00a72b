"""One supervised pool of processes for whatever runs outside of this one. See README.md here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .callables import WorkerPool
    from .lease import SlotBatch
    from .pool import PreprocessPool
    from .shared_fork_server import warm_start
else:
    # The fork server is asked for before anything large is imported, so that both go on at once.
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "callables": ("WorkerPool",),
            "lease": ("SlotBatch",),
            "pool": ("PreprocessPool",),
            "shared_fork_server": ("warm_start",),
        },
    )

__all__ = ["PreprocessPool", "SlotBatch", "WorkerPool", "warm_start"]
