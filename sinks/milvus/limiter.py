"""How much to ask of a server at once: how many calls in flight, how many rows in each. Found by trying."""

from __future__ import annotations

import time
from collections.abc import Callable

_FEWEST_ROWS = 50
_MORE_ROWS = 50
_SLOW_CALL = 1.0
"""Seconds. A call that takes longer carries too many rows: it is halfway to a timeout, and a retry costs as much."""

_WINDOW_CALLS = 8
_WINDOW_SECONDS = 0.25
_IN_USE = 0.8
"""Share of the time that the calls must have been in use for a window to count."""

_PROBE_EVERY = 6
_WORTH_A_CALL = 0.02
"""One more call in flight must bring 2 % more rows: within the noise, fewer are better."""

_NEWS = 0.4
"""Weight of the newest window in what is remembered of a number of calls."""


class AdaptiveLimiter:
    """The number of calls that brings most rows a second, and the rows of one. Not thread-safe; its owner locks.

    Rows a second are measured in windows, and remembered by the number of calls that were allowed meanwhile. The best
    number is used; every few windows a neighbour is tried, an unknown one at once. So it climbs from one call to as
    many as help, and follows a server whose mood changes. A window in which calls stood idle says nothing about the
    server and does not count. A server that says "rate limit" halves the number; it rises again by one a window.

    Args:
        most_calls: never more in flight.
        most_rows: never more in a call; fewer while calls take longer than a second.
        clock: for tests.
    """

    def __init__(self, most_calls: int, most_rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_calls = most_calls
        self._most_rows = most_rows
        self._clock = clock
        self._calls = 1
        self._rows = most_rows
        self._rates: dict[int, float] = {}
        self._windows = 0
        self._open_window()

    @property
    def calls(self) -> int:
        """Calls that may be in flight now."""
        return self._calls

    @property
    def rows(self) -> int:
        """Rows that a call may carry now."""
        return self._rows

    def limit(self, most_calls: int) -> None:
        """From now on never more calls than that. What was learned is forgotten if that is new."""
        if most_calls != self._most_calls:
            self._most_calls = most_calls
            self._calls = min(self._calls, most_calls)
            self._rates.clear()
            self._open_window()

    def done(self, rows: int, seconds: float) -> None:
        """A call of so many rows has succeeded, in so many seconds."""
        self._size(rows, seconds)
        self._window_rows += rows
        self._window_calls += 1
        self._busy += seconds
        elapsed = self._clock() - self._begin
        if self._window_calls >= max(_WINDOW_CALLS, 2 * self._calls) and elapsed >= _WINDOW_SECONDS:
            if self._busy >= _IN_USE * elapsed * self._calls:
                self._learn(self._window_rows / elapsed)
            self._open_window()

    def limited(self) -> None:
        """The server has refused a call because there are too many."""
        self._calls = max(1, self._calls // 2)
        self._rates.clear()  # what it took before it was limited says nothing now
        self._open_window()

    def _size(self, rows: int, seconds: float) -> None:
        if seconds > _SLOW_CALL:
            self._rows = max(min(_FEWEST_ROWS, self._most_rows), min(self._rows, rows) // 2)
        elif seconds < _SLOW_CALL / 2 and 2 * rows >= self._rows:
            self._rows = min(self._most_rows, self._rows + _MORE_ROWS)

    def _learn(self, rate: float) -> None:
        known = self._rates.get(self._calls, rate)
        self._rates[self._calls] = known + _NEWS * (rate - known)
        self._windows += 1
        best = max(self._rates, key=lambda calls: self._rates[calls] * (1 - _WORTH_A_CALL * calls))
        more, fewer = min(best + 1, self._most_calls), max(best - 1, 1)
        if more not in self._rates:
            best = more
        elif self._windows % _PROBE_EVERY == 0:
            best = more if self._windows // _PROBE_EVERY % 2 else fewer
        self._calls = best

    def _open_window(self) -> None:
        self._begin = self._clock()
        self._window_rows = 0
        self._window_calls = 0
        self._busy = 0.0
