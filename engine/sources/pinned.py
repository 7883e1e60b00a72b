"""A connection to an address that has been checked, whose every piece has to come in time."""

from __future__ import annotations

import errno
import http.client
import io
import math
import select
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

TOO_LONG: Final = "it took longer than it may"
STALLED: Final = "nothing came for too long"

_CONNECT: Final = 10.0

Found = Sequence[tuple[int, tuple[str, int]]]
"""Family and address of a host."""


class PinnedConnection(http.client.HTTPConnection):
    """A connection to an address that has been checked: the name is never resolved again. TLS checks the name."""

    def __init__(self, host: str, port: int, found: Found, tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=_CONNECT)
        self._found, self._tls = found, tls
        self._end, self._stall = 0.0, math.inf
        self.is_new = True

    def __del__(self) -> None:
        self.close()  # its thread has ended

    def ask(
        self, target: str, headers: Mapping[str, str], end: float, stall: float = math.inf
    ) -> http.client.HTTPResponse:
        """The answer, whose body is to be read by then, too; and something is to come within `stall` seconds."""
        self.is_new = self.sock is None
        self._end, self._stall = end, stall
        if self.sock is not None:
            self.sock.settimeout(min(_left(end), stall))
        self.request("GET", target, headers=dict(headers))
        return self.getresponse()

    def connect(self) -> None:
        """To the first address that answers."""
        for number, (family, address) in enumerate(self._found, 1):
            made = socket.socket(family, socket.SOCK_STREAM)
            try:
                made.settimeout(min(_left(self._end), self._stall, _CONNECT))
                made.connect(address)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sock = self._tls.wrap_socket(made, server_hostname=self.host) if self._tls else made
            except OSError:
                made.close()
                if number == len(self._found):
                    raise
            else:
                return

    def _answer(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        """What `getresponse` reads the answer by."""
        response = http.client.HTTPResponse(sock, *args, **kwargs)
        response.fp.close()
        response.fp = io.BufferedReader(_Timed(sock, self._end, self._stall))
        return response

    response_class = cast("type[http.client.HTTPResponse]", _answer)  # called as a method


class _Timed(io.RawIOBase):
    """What comes by a socket until a deadline, headers and body: a time-out of the socket is about each piece alone."""

    def __init__(self, sock: socket.socket, end: float, stall: float) -> None:
        self._sock, self._end, self._stall = sock, end, stall
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = _left(self._end)
        self._sock.settimeout(min(left, self._stall))
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, TOO_LONG if left <= self._stall else STALLED) from None

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError(errno.ETIMEDOUT, TOO_LONG)
    return left


def is_stale(kept: socket.socket) -> bool:
    """Whether the other side has closed it, or says what nobody asked."""
    poll = select.poll()
    poll.register(kept, select.POLLIN)
    return bool(poll.poll(0))
