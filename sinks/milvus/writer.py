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
from .errors import Kind, Trouble
from .limiter import Pace

Row = dict[str, Any]
Encode = Callable[[int], tuple[Row, int]]
Upsert = Callable[[Any, list[Row], float], None]

_Refused = list[tuple[int, RowRefusedError]]
_SMALLEST_CALL_BYTES = 64 * 1024


@dataclass(slots=True, eq=False)
class _Share:
    """Rows of one `write` that go into one call, maybe with those of others."""

    rows: list[tuple[int, Row]] = field(default_factory=list[tuple[int, Row]])
    size: int = 0
    in_line: bool = True
    done: bool = False
    refused: _Refused = field(default_factory=list[tuple[int, RowRefusedError]])
    error: SinkError | None = None

    @property
    def keys(self) -> set[str]:
        return {row[KEY] for _, row in self.rows}


class MilvusWriter:
    """The sending half of a `MilvusSink`. Thread-safe.

    Threads that write while all calls are taken wait in a line; the next call takes along what fits of the line. So
    calls grow by themselves when the server is slow, and no row waits for others when it is not. `Pace` says how many
    calls there are and how many rows go into one.

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
        self._pace = Pace(calls, rows_per_call)
        self._changed = threading.Condition()
        self._line: list[_Share] = []
        self._in_flight = 0
        self._sums = dict.fromkeys(("calls", "rows", "retries", "splits", "limited_seconds"), 0.0)

    def one_at_a_time(self, wanted: bool) -> None:
        """Whether the server must get one call after the other."""
        with self._changed:
            self._pace.limit(1 if wanted else self._calls)

    def stats(self) -> Mapping[str, float]:
        """What was found to be the best pace, and what it cost so far; see `MilvusSink.stats`."""
        with self._changed:
            sums = dict(self._sums)
            mean = sums.pop("rows") / (sums["calls"] or 1)
            return {"rows_per_call": mean, "in_flight": self._pace.calls, **sums}

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
        for share in self._shares(indices, encode, refused):
            self._deliver(share)
            refused += share.refused
        return refused

    def error(self, what: str, trouble: Trouble) -> SinkError:
        """What to tell the user of a failure that is about the whole sink."""
        gone = " (the collection has gone)" if trouble.kind is Kind.MISSING else ""
        return SinkError(
            f"{self._connection.target.shown}: {what} failed on collection {self._collection!r}{gone}: {trouble}"
        )

    def _refuses_all(self, trouble: Trouble) -> SinkError:
        return SinkError(
            f"{self.error('write', trouble)}. It refuses every row: has the collection been made anew, with other"
            " vectors? Open it again, or choose another one (--collection)"
        )

    def _shares(self, indices: list[int], encode: Encode, refused: _Refused) -> Iterator[_Share]:
        """Cut the rows by number and bytes; rows that cannot be encoded go to `refused`."""
        share = _Share()
        for index in indices:
            try:
                row, size = encode(index)
            except RowRefusedError as error:
                refused.append((index, error))
                continue
            if share.rows and (len(share.rows) >= self._pace.rows or share.size + size > self._call_bytes):
                yield share
                share = _Share()
            share.rows.append((index, row))
            share.size += size
        if share.rows:
            yield share

    def _deliver(self, share: _Share) -> None:
        """Return when the share has been sent: by this thread, or along with another's."""
        with self._changed:
            self._line.append(share)
            try:
                self._changed.wait_for(lambda: share.done or (share.in_line and self._in_flight < self._pace.calls))
            except BaseException:  # Ctrl-C: who leaves takes the rows along, nobody may read their vectors any more
                self._leave(share)
                raise
            group = [] if share.done else self._board(share)
        if group:
            self._lead(group)
        if share.error is not None:
            raise share.error

    def _leave(self, share: _Share) -> None:
        """Mutex held."""
        if share.in_line and not share.done:
            self._line.remove(share)
        elif not share.done:
            self._changed.wait_for(lambda: share.done)

    def _board(self, share: _Share) -> list[_Share]:
        """Take a call, the share, and what else of the line fits. Mutex held."""
        self._in_flight += 1
        group, size, keys = [share], share.size, share.keys
        for other in self._line:
            if other is not share:
                size += other.size
                if len(keys) + len(other.rows) > self._pace.rows or size > self._call_bytes or keys & other.keys:
                    break  # the last: Milvus refuses a key that is twice in one call
                group.append(other)
                keys = keys | other.keys
        for member in group:
            member.in_line = False
            self._line.remove(member)
        return group

    def _lead(self, group: list[_Share]) -> None:
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
                    group += self._line
                    self._line.clear()
                for share in group:
                    share.error, share.done = failure, True
                self._changed.notify_all()

    def _send_all(self, group: list[_Share]) -> None:
        call = [(share, index, row) for share in group for index, row in share.rows]
        troubles = self._send(call)
        if len(troubles) == len(call) > 1 and all(trouble.kind is Kind.UNKNOWN for *_, trouble in troubles):
            raise self._refuses_all(troubles[0][-1]) from troubles[0][-1]  # it is not the rows
        for share, index, row, trouble in troubles:
            refusal = RowRefusedError(f"row {row[KEY]!r}: Milvus refused it: {trouble}")
            share.refused.append((index, refusal))

    def _send(self, call: list[tuple[_Share, int, Row]]) -> list[tuple[_Share, int, Row, Trouble]]:
        """Upsert; halves what is too large, and bisects to the rows that are refused."""
        try:
            self._call([row for *_, row in call])
        except Trouble as trouble:
            if trouble.kind is Kind.MISSING:
                raise self.error("write", trouble) from trouble
            if len(call) == 1:
                return [(*call[0], trouble)]
            if trouble.kind is Kind.TOO_LARGE:
                self._call_bytes = max(_SMALLEST_CALL_BYTES, self._call_bytes // 2)
        else:
            return []
        with self._changed:
            self._sums["splits"] += 1
        middle = len(call) // 2
        return self._send(call[:middle]) + self._send(call[middle:])

    def _call(self, rows: list[Row]) -> None:
        begin = time.monotonic()

        def on_retry(kind: Kind, pause: float) -> None:
            nonlocal begin
            with self._changed:
                self._sums["retries"] += 1
                if kind is Kind.LIMITED:
                    self._sums["limited_seconds"] += pause
                    self._pace.limited()
            begin = time.monotonic() + pause

        self._connection.call("write", lambda client, seconds: self._upsert(client, rows, seconds), on_retry)
        with self._changed:
            self._sums["calls"] += 1
            self._sums["rows"] += len(rows)
            self._pace.done(len(rows), time.monotonic() - begin)
