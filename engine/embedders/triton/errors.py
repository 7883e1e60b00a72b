"""What an error of a server means for the batch that met it."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from .transport import ServerError

RequestError = (OSError, ServerError)
"""All that a `Transport` raises."""


class ErrorKind(Enum):
    """What to do about it."""

    AWAY = "away"  # the server or the model cannot be asked now: elsewhere, or later
    REGION_LOST = "region lost"  # the server does not know our memory: it has started anew, perhaps with another model
    CRASHED = "crashed"  # the model's process or the server died of this request, of its neighbour, or for itself
    REFUSED = "refused"  # the model says no to these pixels
    MISFIT = "misfit"  # request and model do not fit, whatever the pixels


# Words of Triton 2.51 (24.10) at its HTTP and gRPC doors, observed; statuses alone do not tell: 400 and 500 are given
# for nearly everything. Any other error with status 400 or 500 is the model's own.
_WORDS: Final[tuple[tuple[ErrorKind, re.Pattern[str]], ...]] = (
    (ErrorKind.REGION_LOST, re.compile(r"unable to find (system )?shared memory region", re.I)),
    (ErrorKind.CRASHED, re.compile(r"stub process '.*' is not healthy", re.I)),
    (ErrorKind.AWAY, re.compile(r"request for unknown model|not at ready state|no available versions", re.I)),
    (ErrorKind.AWAY, re.compile(r"server is (stopping|exiting|not live|not ready)|exceeds maximum queue size", re.I)),
    (
        ErrorKind.MISFIT,
        re.compile(
            r"byte size mismatch|unexpected (inference|shape|datatype)|data-type is|batch-size must be"
            r"|should be at least|invalid offset \+ byte size",
            re.I,
        ),
    ),
)
_CUT: Final = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_AWAY_STATUS: Final = (404, 408, 429, 502, 503, 504)
_MISFIT_STATUS: Final = (401, 403, 405, 413, 501)


def kind_of(error: Exception) -> ErrorKind:
    """Classify what a `Transport` raised."""
    if not isinstance(error, ServerError):
        return ErrorKind.CRASHED if isinstance(error, _CUT) else ErrorKind.AWAY
    for fault, words in _WORDS:
        if words.search(error.text):
            return fault
    if error.status in _AWAY_STATUS:
        return ErrorKind.AWAY
    return ErrorKind.MISFIT if error.status in _MISFIT_STATUS else ErrorKind.REFUSED
