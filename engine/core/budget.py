"""How many failures a stage may have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Final, NamedTuple

from ...errors import ConfigError
from ...formatting import count, printable

Budget = int | Fraction
"""A count (-1: no limit), or a share of the items in (0, 1]."""

_JUDGED_AFTER: Final = 100
"""Before so many units a rate says nothing, but at the end."""
_KEPT: Final = 8
"""Errors kept for whoever catches the failure. Their tracebacks hold on to values, so not many."""
_NAMED: Final = 3
"""Items in the final message: the first that failed."""
_LONGEST: Final = 200
"""Characters shown of what an error says, and of a name: of a path its end."""


class Tally(NamedTuple):
    """What a stage did: units it has tried, and those of them that failed."""

    done: int = 0
    failed: int = 0


class FailureBudget:
    """Counts what a stage did and says when its failures are too many.

    Args:
        limit: how many there may be.
        earlier: what earlier runs of the same work did there: a rate is one of all runs together, a count one of each.

    Attributes:
        errors: the latest ones.
    """

    __slots__ = ("_done", "_earlier", "_failed", "_first", "_limit", "errors")

    def __init__(self, limit: Budget, earlier: Tally | None = None) -> None:
        self._limit = limit
        self._earlier = earlier or Tally()
        self._done = 0
        self._failed = 0
        self._first: list[str] = []
        self.errors: deque[Exception] = deque(maxlen=_KEPT)

    def count(self, units: int) -> None:
        """So many units were tried."""
        self._done += units

    def fail(self, units: int) -> None:
        """So many of them failed."""
        self._failed += units

    def record(self, error: Exception, key: str, describe: Callable[[], str]) -> None:
        """Why, and what people know the item by: its key, or else what `describe` says."""
        self.errors.append(error)
        if len(self._first) < _NAMED:
            name, why = printable(str(key or describe())), printable(str(error))[:_LONGEST]
            name = name if len(name) <= _LONGEST else f"...{name[-_LONGEST:]}"
            self._first.append(f"{name} ({type(error).__name__}: {why})")

    @property
    def is_spent(self) -> bool:
        """Whether the stage must stop: a rate is over the limit in this run and in all together."""
        if isinstance(self._limit, Fraction):
            return self._done >= _JUDGED_AFTER and self._failed > self._limit * self._done and self.is_exceeded
        return self.is_exceeded

    @property
    def is_exceeded(self) -> bool:
        """Whether there were too many, now that the stage has ended: whatever the number of its units."""
        if isinstance(self._limit, Fraction):
            return self._earlier.failed + self._failed > self._limit * (self._earlier.done + self._done)
        return 0 <= self._limit < self._failed

    def __str__(self) -> str:
        failed, done = self._failed, self._done
        if isinstance(self._limit, Fraction):
            failed, done = self._earlier.failed + failed, self._earlier.done + done
        first = f"; the first: {', '.join(self._first)}" if self._first else ""
        limit = _format(self._limit)
        return f"{count(failed)} of {count(done)} items failed, more than max_failures={limit} allows{first}"


def _format(limit: Budget) -> str:
    """A limit as people write it."""
    if not isinstance(limit, Fraction):
        return str(limit)
    per_cent = f"{float(100 * limit):.10g}"
    return f"{per_cent}%" if Fraction(per_cent) == 100 * limit else str(limit)


def check_budget(budget: object, knob: str = "max_failures") -> None:
    """Check a failure budget.

    Raises:
        ConfigError: it is neither an int from -1 nor a Fraction in (0, 1].
    """
    if isinstance(budget, Fraction):
        if not 0 < budget <= 1:
            raise ConfigError(f"{knob}={budget!r}: a rate must be a Fraction in (0, 1]")
    elif isinstance(budget, bool) or not isinstance(budget, int) or budget < -1:
        raise ConfigError(f"{knob}={budget!r} must be an int (-1 for no limit) or, for a rate, a Fraction in (0, 1]")


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
