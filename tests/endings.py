"""How an operation ends its worker. Light: a worker imports it within the time that the operation has."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys


def end(how: str) -> None:
    """An operation that does not come back."""
    faulthandler.disable()
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))
    elif how == "_exit":
        os._exit(3)
    elif how == "sys.exit":
        sys.exit(4)
    raise MemoryError(how) if how == "MemoryError" else RuntimeError(how)
