"""How rows get into Milvus: gathered into calls, sent, split where a call is too large or a row is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import RowRefusedError, SinkError
from ..rows import KEY
from .connection import Connection
from .errors import CallError, ErrorKind
from .limiter import AdaptiveLimiter

Row = dict[str, Any]
Encode = Callable[[int], tuple[Row, int]]
Upsert = Callable[[Any, list[Row], float], None]

_Refused = list[tuple[int, RowRefusedError]]
_SMALLEST_CALL_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class _Write:
    """Rows of one `write` that go into one call, maybe with those of others."""

    rows: list[tuple[int, Row]] = field(default_factory=list[tuple[int, Row]])
    size: int = 0
    queued: bool = True
    done: bool = False
    refused: _Refused = field(default_factory=list[tuple[int, RowRefusedError]])
    error: SinkError | None = None

    @property
    def keys(self) -> set[str]:
        return {row[KEY] for _, row in self.rows}


class MilvusWriter:
    """The sending half of a `MilvusSink`. Thread-safe.

    Group commit: threads that write while all calls are taken wait in a queue, and the next call takes along what fits
    of it. So calls grow by themselves when the server is slow, and no row waits for others when it is not.
    `AdaptiveLimiter` says how many calls there are and how many rows go into one.

    Args:
        connection: shared with the sink.
        collection: for messages.
        upsert: ``(client, rows, seconds)``: one call of pymilvus, which may be done twice.
        calls: at most that many in flight.
        rows_per_call: at most that many rows in one.
        call_bytes: at most about that many bytes in one.
    """

    def __init__(
        self,
        connection: Connection,
        collection: str,
        upsert: Upsert,
        *,
        calls: int,
        rows_per_call: int,
        call_bytes: int,
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._upsert = upsert
        self._calls = calls
        self._call_bytes = call_bytes
        self._limiter = AdaptiveLimiter(calls, rows_per_call)
        self._changed = threading.Condition()
        self._queue: list[_Write] = []
        self._in_flight = 0
        self._sums = dict.fromkeys(("calls", "rows", "retries", "splits", "limited_seconds"), 0.0)

    def one_at_a_time(self, wanted: bool) -> None:
        """Whether the server must get one call after the other."""
        with self._changed:
            self._limiter.limit(1 if wanted else self._calls)

    def stats(self) -> Mapping[str, float]:
        """What was found to be the best pace, and what it cost so far; see `MilvusSink.stats`."""
        with self._changed:
            sums = dict(self._sums)
            mean = sums.pop("rows") / (sums["calls"] or 1)
            return {"rows_per_call": mean, "in_flight": self._limiter.calls, **sums}

    def write(self, indices: list[int], encode: Encode) -> _Refused:
        """Send these rows of a batch; when it returns all but the answered ones are acknowledged.

        Args:
            indices: of the rows.
            encode: the row of an index as Milvus takes it, and about how many bytes it is; raises RowRefusedError.

        Raises:
            SinkUnavailableError: Milvus does not answer, after retries.
            SinkError: Milvus refuses everything, the collection has gone, or access is denied.
        """
        refused: _Refused = []
        for part in self._writes(indices, encode, refused):
            self._deliver(part)
            refused += part.refused
        return refused

    def error(self, what: str, cause: CallError) -> SinkError:
        """What to tell the user of a failure that is about the whole sink."""
        gone = " (the collection has gone)" if cause.kind is ErrorKind.MISSING else ""
        return SinkError(
            f"{self._connection.target.shown}: {what} failed on collection {self._collection!r}{gone}: {cause}"
        )

    def _refuses_all(self, cause: CallError) -> SinkError:
        return SinkError(
            f"{self.error('write', cause)}. It refuses every row: has the collection been made anew, with other"
            " vectors? Open it again, or choose another one (--collection)"
        )

    def _writes(self, indices: list[int], encode: Encode, refused: _Refused) -> Iterator[_Write]:
        """Cut the rows by number and bytes; rows that cannot be encoded go to `refused`."""
        part = _Write()
        for index in indices:
            try:
                row, size = encode(index)
            except RowRefusedError as error:
                refused.append((index, error))
                continue
            if part.rows and (len(part.rows) >= self._limiter.rows or part.size + size > self._call_bytes):
                yield part
                part = _Write()
            part.rows.append((index, row))
            part.size += size
        if part.rows:
            yield part

    def _deliver(self, part: _Write) -> None:
        """Return when the part has been sent: by this thread, or along with another's."""
        with self._changed:
            self._queue.append(part)
            try:
                self._changed.wait_for(lambda: part.done or (part.queued and self._in_flight < self._limiter.calls))
            except BaseException:  # Ctrl-C: who leaves takes the rows along, nobody may read their vectors any more
                self._leave(part)
                raise
            group = [] if part.done else self._join_group(part)
        if group:
            self._commit_group(group)
        if part.error is not None:
            raise part.error

    def _leave(self, part: _Write) -> None:
        """Mutex held."""
        if part.queued and not part.done:
            self._queue.remove(part)
        elif not part.done:
            self._changed.wait_for(lambda: part.done)

    def _join_group(self, part: _Write) -> list[_Write]:
        """Take a call, the part, and what else of the queue fits. Mutex held."""
        self._in_flight += 1
        group, size, keys = [part], part.size, part.keys
        for other in self._queue:
            if other is not part:
                size += other.size
                if len(keys) + len(other.rows) > self._limiter.rows or size > self._call_bytes or keys & other.keys:
                    break  # the last: Milvus refuses a key that is twice in one call
                group.append(other)
                keys = keys | other.keys
        for member in group:
            member.queued = False
            self._queue.remove(member)
        return group

    def _commit_group(self, group: list[_Write]) -> None:
        """Send a group, and tell its members. A failure of the sink goes to all who wait: none has to find out anew."""
        failure: SinkError | None = None
        try:
            self._send_all(group)
        except SinkError as error:
            failure = error
        except BaseException as error:
            failure = SinkError(f"{self._connection.target.shown}: another thread gave up writing: {error!r}")
            raise
        finally:
            with self._changed:
                self._in_flight -= 1
                if failure is not None:
                    group += self._queue
                    self._queue.clear()
                for part in group:
                    part.error, part.done = failure, True
                self._changed.notify_all()

    def _send_all(self, group: list[_Write]) -> None:
        call = [(part, index, row) for part in group for index, row in part.rows]
        troubles = self._send(call)
        if len(troubles) == len(call) > 1 and all(cause.kind is ErrorKind.UNKNOWN for *_, cause in troubles):
            raise self._refuses_all(troubles[0][-1]) from troubles[0][-1]  # it is not the rows
        for part, index, row, cause in troubles:
            refusal = RowRefusedError(f"row {row[KEY]!r}: Milvus refused it: {cause}")
            part.refused.append((index, refusal))

    def _send(self, call: list[tuple[_Write, int, Row]]) -> list[tuple[_Write, int, Row, CallError]]:
        """Upsert; halves what is too large, and bisects to the rows that are refused."""
        try:
            self._call([row for *_, row in call])
        except CallError as cause:
            if cause.kind is ErrorKind.MISSING:
                raise self.error("write", cause) from cause
            if len(call) == 1:
                return [(*call[0], cause)]
            if cause.kind is ErrorKind.TOO_LARGE:
                self._call_bytes = max(_SMALLEST_CALL_BYTES, self._call_bytes // 2)
        else:
            return []
        with self._changed:
            self._sums["splits"] += 1
        middle = len(call) // 2
        return self._send(call[:middle]) + self._send(call[middle:])

    def _call(self, rows: list[Row]) -> None:
        begin = time.monotonic()

        def on_retry(kind: ErrorKind, pause: float) -> None:
            nonlocal begin
            with self._changed:
                self._sums["retries"] += 1
                if kind is ErrorKind.LIMITED:
                    self._sums["limited_seconds"] += pause
                    self._limiter.limited()
            begin = time.monotonic() + pause

        self._connection.call("write", lambda client, seconds: self._upsert(client, rows, seconds), on_retry)
        with self._changed:
            self._sums["calls"] += 1
            self._sums["rows"] += len(rows)
            self._limiter.done(len(rows), time.monotonic() - begin)
