"""How many failures a stage may have."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

from ..errors import ConfigError

Budget = int | Fraction
"""A count (-1: no limit), or a share of the items in (0, 1]."""

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


def check_budget(budget: object) -> None:
    """Check a failure budget.

    Raises:
        ConfigError: it is neither an int from -1 nor a Fraction in (0, 1].
    """
    if isinstance(budget, Fraction):
        if not 0 < budget <= 1:
            raise ConfigError(f"max_failures={budget!r}: a rate must be a Fraction in (0, 1]")
    elif isinstance(budget, bool) or not isinstance(budget, int) or budget < -1:
        raise ConfigError(
            f"max_failures={budget!r} must be an int (-1 for no limit) or, for a rate, a Fraction in (0, 1]"
        )


def parse_budget(value: object) -> Budget:
    """A failure budget in any of its spellings: 10, "10", "5%", 0.05, "1/20", None for no limit.

    Raises:
        ValueError: it is none.
    """
    wrong = ValueError("must be a count (0, 10; -1 for no limit) or a rate above 0 up to 100% (5%, 0.05, 1/20)")
    if value is None:
        return -1
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise wrong
    try:
        if isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("-").isdigit()):
            count = int(value)
        else:
            text = str(value).strip()
            rate = Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            if not 0 < rate <= 1:
                raise wrong
            return rate
    except (ValueError, ZeroDivisionError):
        raise wrong from None
    if count < -1:
        raise wrong
    return count
