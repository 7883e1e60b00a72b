"""How many failures a stage may have."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

from .defs import Budget

_JUDGED_AFTER = 100
"""A rate says nothing before so many units."""
_KEPT = 8
"""Errors kept for the final message. Their tracebacks hold on to values, so not many."""


class FailureBudget:
    """Counts what a stage did and says when its failures are too many.

    Attributes:
        errors: the latest ones.
    """

    __slots__ = ("_done", "_failed", "_limit", "errors")

    def __init__(self, limit: Budget) -> None:
        self._limit = limit
        self._done = 0
        self._failed = 0
        self.errors: deque[Exception] = deque(maxlen=_KEPT)

    def count(self, units: int, failed: int = 0) -> None:
        """So many units were tried, and so many of them failed."""
        self._done += units
        self._failed += failed

    @property
    def is_spent(self) -> bool:
        """Whether the stage must stop."""
        if isinstance(self._limit, Fraction):
            return self._done >= _JUDGED_AFTER and self._failed > self._limit * self._done
        return 0 <= self._limit < self._failed

    def __str__(self) -> str:
        return f"{self._failed} of {self._done} items failed, and max_failures={self._limit} is the limit"
