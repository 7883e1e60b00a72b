"""How long a stage goes on trying an item again, by its policy and by what came of it before."""

from __future__ import annotations

from random import Random
from typing import Final

from .policies import Retry

_BRIEFLY: Final = 3
"""Attempts at an item where trying for long has proved to be in vain."""

_LONGEST_ASKED: Final = 600.0
"""Seconds that a server may ask for where the policy sets no time: an item holds its place meanwhile."""


class Patience:
    """What a stage that tries again has learnt.

    A policy that is a time is for what passes: a server that starts anew, a network that is gone for a moment. Where
    nothing passes, each item would take that time and hold its place meanwhile, and a job full of such items would not
    end. So once as many items in a row have been given up as the stage does at once, the following ones get
    `_BRIEFLY` attempts, until one of them goes well after all. A policy that is a count is kept to as it is.

    Args:
        retry: the policy.
        places: items that the stage does at once.
    """

    def __init__(self, retry: Retry, places: int) -> None:
        self._retry = retry
        self._places = places
        self._in_vain = 0
        self._random = Random()  # noqa: S311  (spreads attempts over time, hides nothing)

    def is_last(self, attempt: int, waited: float) -> bool:
        """Whether the attempt that begins now (from 1 on) is the last one.

        Args:
            attempt: its number.
            waited: seconds since the first one failed.
        """
        if self._retry.within is None:
            return attempt >= (self._retry.attempts or 1)
        return waited >= self._retry.within or (attempt >= _BRIEFLY and self._in_vain >= self._places)

    def can_wait(self, asked: float, waited: float) -> bool:
        """Whether there is time for a wait that somebody asked for; else trying again before it is over is in vain.

        Args:
            asked: seconds.
            waited: seconds since the first attempt failed.
        """
        return asked <= (_LONGEST_ASKED if self._retry.within is None else self._retry.within - waited)

    def pause(self, failed: int, waited: float, asked: float = 0.0) -> float:
        """Seconds to wait after so many attempts have failed; the last one begins when the time is over.

        Args:
            failed: attempts so far.
            waited: seconds since the first one failed.
            asked: seconds that somebody asked for, at least.
        """
        seconds = max(self._retry.delay(failed, self._random), asked)
        return seconds if self._retry.within is None else min(seconds, max(self._retry.within - waited, 0.0))

    def learn(self, in_vain: bool) -> None:
        """An item that was tried again went well, or was given up."""
        self._in_vain = self._in_vain + 1 if in_vain else 0
