"""Reading references in this process, for workers that may not: a sandbox has no network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from time import monotonic, sleep
from typing import Any, Final

from ....errors import ItemError
from ....fetch import Fetchers
from ....preprocess.worker.failures import detach_traceback
from ....references import Reference
from ...core.patience import Patience
from ...core.policies import Policy, Retry, is_transient
from ...core.threads import DaemonThreads
from ...sources import Item

_AHEAD: Final = 4
"""Entries for each thread that may be under way or wait for those before them, however small they are."""


def fetched(entries: Iterable[Any], max_bytes: int, threads: int, room: int, policy: Policy) -> Generator[Any]:
    """The same entries in the same order; items bring their bytes instead of a reference, or why they cannot.

    Args:
        entries: of a source.
        max_bytes: of one picture; one whose size the source does not know is counted as so large until it is read.
        threads: reads in flight.
        room: bytes that may be read, or under way, and not taken; a larger picture is read alone.
        policy: of the stage that the items go to: what passes by itself is tried again here, where it can be.
    """
    read = partial(_read, Fetchers(max_bytes), Patience(policy, threads) if isinstance(policy, Retry) else None)
    pool = DaemonThreads(threads, "penstock-fetch")
    ahead: deque[_Read] = deque()
    try:
        for entry in entries:
            last = _Read(entry, max_bytes)
            while ahead and (len(ahead) >= _AHEAD * threads or _held(ahead) + last.nbytes > room):
                yield ahead.popleft().result()
            last.start(pool, read)
            ahead.append(last)
            while ahead and ahead[0].is_done:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=False)


class _Read:
    """An entry on its way; if it is an item with a reference, its bytes are read in a thread."""

    def __init__(self, entry: Any, max_bytes: int) -> None:
        self._entry = entry
        self._reference = entry.reference if isinstance(entry, Item) else None
        self._most = 0
        if self._reference is not None:
            size = self._reference.version.size
            self._most = size if 0 <= size <= max_bytes else max_bytes
        self._data: Future[bytes | ItemError] | None = None

    @property
    def is_done(self) -> bool:
        return self._data is None or self._data.done()

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, or may come to hold."""
        if self._data is None or not self._data.done():
            return self._most
        data = self._data.result()
        return 0 if isinstance(data, ItemError) else len(data)

    def start(self, pool: DaemonThreads, read: Callable[[Reference], bytes | ItemError]) -> None:
        if self._reference is not None:
            self._data = pool.submit(read, self._reference)

    def result(self) -> Any:
        """The entry, once it has its bytes."""
        return self._entry if self._data is None else replace(self._entry, data=self._data.result(), reference=None)


def _held(ahead: Iterable[_Read]) -> int:
    return sum(read.nbytes for read in ahead)


def _read(fetchers: Fetchers, patience: Patience | None, reference: Reference) -> bytes | ItemError:
    """The bytes; or the error, which is no transient one any more where all attempts are spent."""
    if patience is None:
        return _once(fetchers, reference)[0]
    attempt, failed_at = 1, 0.0
    while True:
        is_last = patience.is_last(attempt, monotonic() - failed_at if failed_at else 0.0)
        found, in_vain = _once(fetchers, reference)
        if not in_vain or is_last:
            break
        failed_at = failed_at or monotonic()
        sleep(patience.pause(attempt, monotonic() - failed_at))
        attempt += 1
    if attempt > 1:
        patience.learn(in_vain)
    if in_vain and isinstance(found, OSError):
        found.errno = None
    return found


def _once(fetchers: Fetchers, reference: Reference) -> tuple[bytes | ItemError, bool]:
    """The bytes, or the error; and whether that is a transient one."""
    try:
        return fetchers.read(reference), False
    except ItemError as error:
        transient = is_transient(error)  # by its causes, too, which it is about to lose
        return detach_traceback(error, ""), transient
