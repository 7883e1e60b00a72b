"""Several sinks at once: every row goes into each of them, and is written when all have acknowledged it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Final

from ..errors import ConfigError, RowRefusedError
from .base import Found, IndexState, Searchable, Sink, SinkMemory
from .rows import RowBatch, WriteResult

_OUTAGE: Final = ("waiting", "retry_for", "behind")
"""Figures of the store that is waited for, as progress shows them."""


class TeeSink(Sink):
    """One sink made of several. Each writes in threads of its own, and tries again by its own rules.

    A row that one of them refuses is refused; the message says by which. Where one of them fails, the others finish
    their write before the error is raised, so that no row is in doubt anywhere but there. One that is down or slow
    holds its writes, and the others get theirs meanwhile, as long as callers come with more: `writes_at_once` of them.

    Args:
        members: the sinks, not open. The first that can be searched is searched.
        backlog: rows that may wait for one of them beside those that are being written.

    Raises:
        ConfigError: two of them are the same.
    """

    def __init__(self, members: Sequence[Sink], backlog: int = 0) -> None:
        self._members = tuple(members)
        self._backlog = backlog
        self._mutex = threading.Lock()
        self._waiting = [0] * len(self._members)  # rows that each has been given and has not answered for
        self._slots = [threading.BoundedSemaphore(member.threads) for member in members]
        prints = [member.fingerprint for member in members]
        if twice := next((name for name in prints if prints.count(name) > 1), None):
            raise ConfigError(f"to: {twice} is named twice: name each store once")

    @property
    def members(self) -> tuple[Sink, ...]:
        return self._members

    @property
    def threads(self) -> int:
        return max(member.threads for member in self._members)

    @property
    def fingerprint(self) -> str:
        return " and ".join(member.fingerprint for member in self._members)

    @property
    def uri(self) -> str:
        return " and ".join(member.uri for member in self._members)

    @property
    def has_secret(self) -> bool:
        return any(member.has_secret for member in self._members)

    @property
    def local_path(self) -> Path | None:
        """That of the first that has one."""
        return next((path for member in self._members if (path := member.local_path)), None)

    def rows_per_write(self, asked: int) -> int:
        """The most that one of them wants: the others divide what is too much for a call."""
        return max(member.rows_per_write(asked) for member in self._members)

    def writes_at_once(self, rows: int) -> int:
        """One for each thread of the member that has the most, and those that the backlog has room for."""
        return self.threads + -(-self._backlog // rows)

    def memory(self, dimension: int, rows: int) -> SinkMemory | None:
        found = [memory for member in self._members if (memory := member.memory(dimension, rows))]
        if not found:
            return None
        names, own = " and ".join(memory.name for memory in found), any(memory.own_process for memory in found)
        return SinkMemory(names, sum(memory.nbytes for memory in found), own)

    @property
    def next_step(self) -> str:
        return "; ".join(filter(None, (member.next_step for member in self._members)))

    @property
    def needs_finish(self) -> bool:
        return any(member.needs_finish for member in self._members)

    def reach(self) -> None:
        for member in self._members:
            member.reach()

    def look(self) -> Found | None:
        """What all of them hold; None where one has nothing. Each by itself says more: see `members`."""
        found = [member.look() for member in self._members if member.keeps_rows]
        there = [each for each in found if each is not None]
        if not there or len(there) < len(found):
            return None
        return Found(min(each.rows for each in there), there[0].note)

    def open(self) -> None:
        for member in self._members:
            member.open()

    @property
    def note(self) -> str:
        """That of the first."""
        return self._members[0].note

    def write(self, rows: RowBatch) -> WriteResult:
        """Write into all at once; back when all have answered.

        Raises:
            SinkError: the first that one of them raised.
        """
        return self.write_missing(rows, [0] * len(rows), lambda *_: None)

    def write_missing(
        self, rows: RowBatch, has: Sequence[int], on_acknowledged: Callable[[int, Sequence[int]], object]
    ) -> WriteResult:
        refused: list[dict[int, RowRefusedError]] = [{} for _ in self._members]
        failures: dict[int, BaseException] = {}

        lacks = [[index for index, bits in enumerate(has) if not bits >> number & 1] for number in range(len(refused))]
        with self._mutex:
            self._waiting = [before + len(missing) for before, missing in zip(self._waiting, lacks, strict=True)]

        def ask(number: int) -> None:
            missing = lacks[number]
            try:
                if len(rows) and not missing:
                    return
                with self._slots[number]:
                    result = self._members[number].write(_of(rows, missing))
                uri = self._members[number].uri
                wrong = {missing[index]: RowRefusedError(f"{uri}: {error}") for index, error in result.refused}
                on_acknowledged(number, [index for index in missing if index not in wrong])
                refused[number] = wrong
            except BaseException as error:  # noqa: BLE001  (raised below, in the caller's thread)
                failures[number] = error
            finally:
                with self._mutex:
                    self._waiting[number] -= len(missing)

        # Daemons, because nobody waits for ever for a store that does not answer.
        numbers = range(1, len(self._members))
        others = [threading.Thread(target=ask, args=(number,), daemon=True) for number in numbers]
        for thread in others:
            thread.start()
        ask(0)
        for thread in others:
            thread.join()
        if failures:
            raise failures[min(failures)]
        first = {index: error for each in reversed(refused) for index, error in each.items()}
        return WriteResult(len(rows) - len(first), sorted(first.items(), key=lambda pair: pair[0]))

    def count(self) -> int:
        """Rows that are in all of them."""
        counts = [member.count() for member in self._members if member.keeps_rows]
        return min(counts) if counts else self._members[0].count()

    def finish(self) -> None:
        """Finish all; one that cannot does not keep the others from it."""
        with ExitStack() as stack:
            for member in reversed(self._members):
                stack.callback(member.finish)

    def stats(self) -> Mapping[str, float]:
        """Of each, with its number from the second on; ``waiting`` is of the one that has been waited for longest, and
        ``behind`` the rows that it has yet to take and another one has not.
        """
        found: dict[str, float] = {}
        longest: Mapping[str, float] = {}
        waiting = tuple(self._waiting)
        for number, (member, rows) in enumerate(zip(self._members, waiting, strict=True), 1):
            own = {**member.stats(), "behind": rows - min(waiting)}
            found |= {name if number == 1 else f"{name} {number}": value for name, value in own.items()}
            if own.get("waiting", -1) > longest.get("waiting", -1):
                longest = own
        return {**found, **{name: longest[name] for name in _OUTAGE if name in longest}}

    def wait_index(
        self, seconds: float, on_progress: Callable[[IndexState], None] = lambda _: None, stop: Event | None = None
    ) -> IndexState:
        """One after the other, for so many seconds each; the state of the one that took longest."""
        states = [member.wait_index(seconds, on_progress, stop) for member in self._members]
        return max(states, key=lambda state: state.seconds)

    def reader(self) -> Searchable | None:
        """That of the first that can be searched."""
        return next((reader for member in self._members if (reader := member.reader())), None)

    def close(self) -> None:
        """Close all; one that does not close does not keep the others open."""
        with ExitStack() as stack:
            for member in self._members:
                stack.callback(member.close)


def _of(rows: RowBatch, indices: Sequence[int]) -> RowBatch:
    """Some rows of a batch; the batch itself where that is all of them."""
    if len(indices) == len(rows):
        return rows
    keys, columns = [rows.keys[index] for index in indices], [rows.columns[index] for index in indices]
    ordinals = None if rows.ordinals is None else [rows.ordinals[index] for index in indices]
    return RowBatch(keys, rows.vectors[list(indices)], columns, ordinals)
