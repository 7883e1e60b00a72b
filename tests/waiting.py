"""How long a test waits for what must happen, and how it waits for what has no event of its own.

No test proves anything by the clock. A limit is there so that what never comes fails with its name instead of hanging,
and it is long enough for a machine that is four times slower than the one the tests were written on. On a slower one
still ``make test SLOWNESS=4`` makes every limit so many times longer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

SLOWNESS: Final = float(os.environ.get("PENSTOCK_SLOWNESS", "1"))
"""How many times slower than the usual this machine is."""

DEADLINE: Final = 200.0 * SLOWNESS
"""Seconds until what must happen counts as never happening. Less than the limit of a whole test (see the Makefile)."""


def patient(seconds: float) -> float:
    """The limit, in seconds, for what is promised within so many on the usual machine."""
    return 4 * seconds * SLOWNESS


def wait_until(true: Callable[[], object], what: str = "it") -> None:
    """Wait for something that cannot be waited for otherwise: what another thread, process or server does.

    Raises:
        AssertionError: it did not come to pass within `DEADLINE`.
    """
    pause, deadline = threading.Event(), monotonic() + DEADLINE
    while not true():
        assert monotonic() < deadline, f"{what} did not come to pass within {DEADLINE:g} s"
        pause.wait(0.005)
