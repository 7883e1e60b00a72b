"""GET of an http(s) URL that a data set names: the address is checked, and that very address is connected to.

A list of URLs is written by strangers. So no URL leads to a host of one's own network (a router, a cloud's metadata
service), by whatever spelling, name or redirect; no body is larger, slower or longer than allowed; and no credentials
are taken from a URL. Proxies of the environment are not used: behind one an address would not be ours to check.
"""

from __future__ import annotations

import errno
import http.client
import io
import ipaddress
import select
import socket
import ssl
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import quote, urljoin, urlsplit

from ...errors import ReadError, TooLargeError
from ...fetch import too_large
from ...messages import redact

_HOLD_IPV4: Final = tuple(map(ipaddress.ip_network, ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
"""IPv6 networks whose last 32 bits are an IPv4 address that is reached: mapped, NAT64, compatible."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HOPS: Final = 4
_PIECE: Final = 2**16
_CONNECT: Final = 10.0
_SAFE: Final = "/%:@!$&'()*+,;=~-._"

_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which it is worth coming again."""

_TOO_LONG: Final = "it took longer than it may"

_MOST_KEPT: Final = 4
"""Connections that a thread keeps."""

_Place = tuple[str, str, int]
"""Scheme, host and port."""

Found = Sequence[tuple[int, tuple[str, int]]]
"""Family and address of a host."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet, also where an IPv6 address leads to one of IPv4."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.sixtofour is not None:
            ip = ip.sixtofour
        elif any(ip in network for network in _HOLD_IPV4):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast


class SafeHttp:
    """Reads URLs. Threads may share it; each has connections of its own, one for each host, kept for the next URL.

    Args:
        allowed: hosts that may have private addresses: ``host`` or ``host:port``.
        deadline: seconds for one URL, redirects and body included.
    """

    def __init__(self, allowed: Collection[str] = (), deadline: float = 30.0) -> None:
        self._allowed = frozenset(host.lower() for host in allowed)
        self._deadline = deadline
        self._own = threading.local()
        self._tls = ssl.create_default_context()

    def get(self, url: str, max_bytes: int, etag: str = "") -> bytes:
        """The body.

        Args:
            url: with any signs: what no URL may hold is encoded.
            max_bytes: a larger body is refused.
            etag: that it must have; empty where that is not known.

        Raises:
            ReadError: it is refused, not there, or does not come; its `errno` says whether it may another time.
            TooLargeError: it is larger.
        """
        end = time.monotonic() + self._deadline
        try:
            for _ in range(_HOPS + 1):
                answer = self._hop(url, max_bytes, etag, end)
                if isinstance(answer, bytes):
                    return answer
                url = answer
            raise _refused(url, "too many redirects")
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, ReadError):
                raise
            raise _read_error(url, error) from None

    def _hop(self, url: str, cap: int, etag: str, end: float) -> bytes | str:
        """One request: the body, or where it is said to be."""
        connection, response = self._ask(url, etag, end)
        whole = False
        try:
            if response.status in _REDIRECTS:
                return urljoin(url, response.getheader("Location", ""))
            _check(url, response, cap)
            body = _body(url, response, cap)
            whole = not response.will_close
            return body
        finally:
            response.close()  # ends the answer; the connection stays
            if not whole:
                connection.close()

    def _ask(self, url: str, etag: str, end: float) -> tuple[_Pinned, http.client.HTTPResponse]:
        """The headers of an answer. A connection that was kept may have ended: then by a new one."""
        place = _place(url)
        headers = {"Accept-Encoding": "identity", "User-Agent": "penstock", **({"If-Match": etag} if etag else {})}
        while True:
            connection = self._connection(place)
            try:
                return connection, connection.ask(_target(url), headers, end)
            except BaseException as error:
                connection.close()
                if connection.is_new or not isinstance(error, ConnectionError):
                    raise

    def _connection(self, place: _Place) -> _Pinned:
        """A connection to a host, which is checked first."""
        kept: dict[_Place, _Pinned] = self._own.__dict__.setdefault("kept", {})
        connection = kept.pop(place, None)
        if connection is None or connection.sock is None or _is_stale(connection.sock):
            if connection is not None:
                connection.close()
            scheme, host, port = place
            connection = _Pinned(host, port, self._resolve(host, port), self._tls if scheme == "https" else None)
        kept[place] = connection
        while len(kept) > _MOST_KEPT:
            kept.pop(next(iter(kept))).close()
        return connection

    def _resolve(self, host: str, port: int) -> Found:
        """The addresses of a host. One that is private refuses the name: which one is taken is not ours to say."""
        found = [
            (family, (str(address[0]), int(address[1])))
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        ]
        if not self._allowed.isdisjoint({host, f"{host}:{port}"}):
            return found
        for _, (address, _port) in found:
            if not is_public(address):
                raise ReadError(f"{host!r} is {address}, not an address of the internet; --allow-host {host} allows it")
        return found


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that has been checked: the name is never resolved again. TLS checks the name."""

    def __init__(self, host: str, port: int, found: Found, tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=_CONNECT)
        self._found, self._tls = found, tls
        self._end = 0.0
        self.is_new = True

    def __del__(self) -> None:
        self.close()  # its thread has ended

    def ask(self, target: str, headers: Mapping[str, str], end: float) -> http.client.HTTPResponse:
        """The answer, whose body is to be read by then, too."""
        self.is_new = self.sock is None
        self._end = end
        if self.sock is not None:
            self.sock.settimeout(_left(end))
        self.request("GET", target, headers=dict(headers))
        return self.getresponse()

    def connect(self) -> None:
        """To the first address that answers."""
        for number, (family, address) in enumerate(self._found, 1):
            made = socket.socket(family, socket.SOCK_STREAM)
            try:
                made.settimeout(min(_left(self._end), _CONNECT))
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
        response.fp = io.BufferedReader(_Timed(sock, self._end))
        return response

    response_class = cast("type[http.client.HTTPResponse]", _answer)  # called as a method


class _Timed(io.RawIOBase):
    """What comes by a socket until a deadline, headers and body: a time-out of the socket is about each piece."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._sock, self._end = sock, end
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(_left(self._end))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _place(url: str) -> _Place:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(url, f"no URL ({error})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _refused(url, "only http and https are read")
    if parts.username is not None or parts.password is not None:
        raise _refused(url, "credentials in a URL")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _target(url: str) -> str:
    parts = urlsplit(url)
    query = "?" + quote(parts.query, safe=_SAFE + "?") if parts.query else ""
    return (quote(parts.path, safe=_SAFE) or "/") + query


def _body(url: str, response: http.client.HTTPResponse, cap: int) -> bytes:
    body = bytearray()
    while piece := response.read1(min(_PIECE, cap + 1 - len(body))):
        body += piece
        if len(body) > cap:
            raise TooLargeError(f"{redact(url)!r} has more than {cap} bytes")
    if response.length:
        raise ConnectionResetError(errno.ECONNRESET, "the connection ended within the body")
    return bytes(body)


def _check(url: str, response: http.client.HTTPResponse, cap: int) -> None:
    """Refuse what will not be read."""
    if response.status != 200:
        error = _refused(url, f"HTTP {response.status} {response.reason}".rstrip())
        error.errno = errno.ETIMEDOUT if response.status in _PASSING else _ERRNO.get(response.status)
        raise error
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise _refused(url, "its body is compressed, though that was not asked for")
    length = response.getheader("Content-Length") or ""
    if length.isdecimal() and int(length) > cap:
        raise too_large(redact(url), int(length), cap)


_ERRNO: Final = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT}


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError(errno.ETIMEDOUT, _TOO_LONG)
    return left


def _is_stale(kept: socket.socket) -> bool:
    """Whether the other side has closed it, or says what nobody asked."""
    poll = select.poll()
    poll.register(kept, select.POLLIN)
    return bool(poll.poll(0))


def _refused(url: str, why: str) -> ReadError:
    return ReadError(f"{redact(url)!r}: {why}")


def _read_error(url: str, error: Exception) -> ReadError:
    if isinstance(error, TimeoutError):
        said = _TOO_LONG
    else:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    failure = _refused(url, redact(said))
    lasting = isinstance(error, ssl.SSLCertVerificationError) or (
        isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
    )
    failure.errno = None if lasting else errno.ETIMEDOUT
    return failure
