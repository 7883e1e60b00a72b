"""Calls to Milvus that outlive a server: retries with backoff and jitter, reconnection, restart of Milvus Lite."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ...backoff import Backoff
from ...errors import SinkError, SinkUnavailableError
from .errors import CallError, ErrorKind, UnreachableError, caught, classify, describe, is_late, is_unreachable, quiet
from .lite import LiteServer, server_for
from .outage import Outage
from .uri import Target

logger = logging.getLogger(__name__)
T = TypeVar("T")
OnRetry = Callable[[ErrorKind, float], None]
"""Told what kind of failure it was, and the seconds until the next try."""

RETRY_FOR = 120.0
"""Seconds to go on trying where nothing else is said."""

_BACKOFF = Backoff(first=0.1, longest=5.0, least=0.5)
_CONNECT_SECONDS = 10.0
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables by which gRPC goes through a proxy: then a plain connection tells nothing."""
_CLOSE_SECONDS = 0.5


def _nobody(kind: ErrorKind, seconds: float) -> None:
    """Nobody wants to know."""


class Connection:
    """One client of one Milvus, shared by all threads of a sink (pymilvus' client is safe for that).

    Args:
        target: where.
        collection: loaded again when the server has forgotten it (Milvus Lite does at each start).
        timeout: seconds for one call.
        retry_for: seconds to go on trying while the server is gone, too busy or over a limit; None: 120, except for a
            first call to a server that is not there.
    """

    def __init__(self, target: Target, collection: str, *, timeout: float, retry_for: float | None) -> None:
        self.target = target
        self._collection = collection
        self._timeout = timeout
        self._retry_for = RETRY_FOR if retry_for is None else retry_for
        self._refused_at_once = retry_for is None and not target.lite
        self._outage = Outage(target.shown, self._retry_for)
        self._mutex = threading.Lock()
        self._closed = threading.Event()
        self._client: Any = None
        self._connected_to = ""
        self._lite: LiteServer | None = None  # while we hold it

    @property
    def waiting(self) -> tuple[float, float]:
        """For how many seconds the server has not answered, and after how many a call is given up."""
        return self._outage.seconds, self._retry_for

    def reach(self) -> None:
        """See whether there is a server, without a client: before anything is begun that needs one.

        Raises:
            SinkUnavailableError: nobody listens there, and the user has not said how long to try.
        """
        if not self._refused_at_once:
            return
        try:
            knock(self.target.address, min(self._timeout, _CONNECT_SECONDS))
        except UnreachableError as error:
            raise SinkUnavailableError(
                f"{self.target.shown}: {error}. Is Milvus running there? One that is starting is waited for with"
                " --retry-for SECONDS (retry_for=)"
            ) from error

    def call(
        self, what: str, request: Callable[[Any, float], T], on_retry: OnRetry = _nobody, *, first: bool = False
    ) -> T:
        """`request(client, seconds)`, tried again while that can help.

        Args:
            what: for messages: "write", "count".
            request: one or more pymilvus calls that may be done twice; gives each of them that many seconds.
            on_retry: told of each failure that is tried again.
            first: nothing depends on it yet: a server that is not there is an error at once, unless the user has said
                how long to try.

        Raises:
            SinkUnavailableError: still no answer after `retry_for` seconds, or nobody listens there.
            SinkError: access denied, no such database, or the sink is closed.
            CallError: any other failure, for the caller to judge.
        """
        if first:
            self.reach()
        deadline = time.monotonic() + self._retry_for
        failed = 0
        client: Any = None
        reason: Exception | None = None
        while True:
            try:
                with quiet():
                    client = self._connected()
                    answer = request(client, max(0.1, min(self._timeout, deadline - time.monotonic())))
            except caught() as error:
                kind = self._judge(what, error)
                if is_unreachable(error):
                    self._give_up(client)
                if reason is None or not is_late(error):  # the last tries have little time, and so nothing to say
                    reason = error
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._unavailable(what, reason) from error
                if kind is ErrorKind.TRANSIENT:
                    self._outage.failed(self._words(error))
                logger.info("%s: %s: %s; trying for %.0f s more", self.target.shown, what, self._words(error), left)
            else:
                self._outage.answered()
                return answer
            failed += 1
            seconds = min(left, _BACKOFF.delay(failed))
            on_retry(kind, seconds)
            if self._closed.wait(seconds):
                raise SinkError(f"{self.target.shown}: closed during {what}")

    def close(self) -> None:
        """Disconnect; the last sink of a Milvus Lite store ends its server. Idempotent. Waiting retries end at once.

        A thread that is just connecting, to a server that does not answer, is not waited for: it lets go of all itself.
        """
        self._closed.set()
        if self._mutex.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._let_go()
            finally:
                self._mutex.release()

    def _connected(self) -> Any:
        with self._mutex:
            if self._closed.is_set():
                raise SinkError(f"{self.target.shown}: the sink is closed")
            try:
                address = self._address()
                if self._client is None or address != self._connected_to:
                    self._disconnect()
                    self._client = self._connect(address)
                    self._connected_to = address
            finally:
                if self._closed.is_set():  # meanwhile, and whoever closed it has not waited
                    self._let_go()
            if self._client is None:
                raise SinkError(f"{self.target.shown}: the sink is closed")
            return self._client

    def _address(self) -> str:
        if not self.target.lite:
            return self.target.address
        if self._lite is None:
            self._lite = server_for(self.target.address)
            self._lite.hold()
        return self._lite.address()

    def _give_up(self, client: Any) -> None:
        """Connect anew next time: gRPC's own reconnection waits longer each time, up to two minutes."""
        with self._mutex:
            if client is self._client:  # else another thread has done so already
                self._disconnect()
            if self._closed.is_set():
                self._let_go()

    def _connect(self, address: str) -> Any:
        from pymilvus import MilvusClient

        seconds = min(self._timeout, _CONNECT_SECONDS)
        if not self.target.lite:
            knock(address, seconds)
        # Dedicated: a shared connection of pymilvus stays open for the life of the process.
        return MilvusClient(
            uri=address,
            token=self.target.token,
            db_name=self.target.database,
            timeout=seconds,
            dedicated=True,
        )

    def _let_go(self) -> None:
        self._disconnect()
        if self._lite is not None:
            self._lite.release()
            self._lite = None

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _judge(self, what: str, error: Exception) -> ErrorKind:
        """Return the kind if trying again may help."""
        kind = classify(error)
        if kind is ErrorKind.NOT_LOADED:
            self._load_again()
        elif kind is ErrorKind.DENIED:
            raise SinkError(
                f"{self.target.shown}: {what} was denied: {self._words(error)}. Check the token (MILVUS_TOKEN)"
            ) from error
        elif kind is ErrorKind.NO_DATABASE:
            raise SinkError(
                f"{self.target.shown}: {self._words(error)}. Create it, or name another one in the URI:"
                f" {self.target.address}/DATABASE"
            ) from error
        elif kind not in {ErrorKind.TRANSIENT, ErrorKind.LIMITED}:
            raise CallError(kind, self._words(error)) from error
        return kind

    def _load_again(self) -> None:
        try:
            self._connected().load_collection(self._collection, timeout=self._timeout)
        except caught():
            logger.info("%s: loading %s failed, trying again", self.target.shown, self._collection)

    def _unavailable(self, what: str, error: Exception) -> SinkUnavailableError:
        return SinkUnavailableError(
            f"{self.target.shown}: no {what} in {self._retry_for:g} s: {self._words(error)}."
            " Is Milvus running and reachable? --retry-for (retry_for=) says how long to go on trying"
        )

    def _words(self, error: Exception) -> str:
        text = describe(error)
        return text.replace(self.target.token, "***") if self.target.token else text


def knock(address: str, seconds: float) -> None:
    """See whether anybody listens at an address.

    Raises:
        UnreachableError: nobody does, or there is no such host.
    """
    if any(os.environ.get(name) for name in _PROXIES):
        return
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), seconds).close()
    except OSError as error:
        raise UnreachableError((error.strerror or str(error)).lower()) from error
