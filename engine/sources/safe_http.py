"""GET of an http(s) URL that a data set names: the address is checked, and that very address is connected to.

A list of URLs is written by strangers. So no URL leads to a host of one's own network (a router, a cloud's metadata
service), by whatever spelling, name or redirect; no body is larger, slower or longer than allowed; and no credentials
are taken from a URL. Proxies of the environment are not used: behind one an address would not be ours to check.
"""

from __future__ import annotations

import http.client
import ipaddress
import math
import socket
import ssl
import threading
import time
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from ...errors import DownloadError, TooLargeError
from ...fetch import too_large
from ...messages import redact
from .answer import Answer, read_error, refused
from .pinned import Found, PinnedConnection, is_stale

_HOLD_IPV4: Final = tuple(map(ipaddress.ip_network, ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
"""IPv6 networks whose last 32 bits are an IPv4 address that is reached: mapped, NAT64, compatible."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HOPS: Final = 4
_PIECE: Final = 2**16
_SAFE: Final = "/%:@!$&'()*+,;=~-._"

_MOST_KEPT: Final = 4
"""Connections that a thread keeps."""

_Place = tuple[str, str, int]
"""Scheme, host and port."""


NOT_PUBLIC: Final = "not an address of the internet"


def not_public(host: str, address: str) -> DownloadError:
    """What is said of a host that is not connected to."""
    return DownloadError(f"{host!r} is {address}, {NOT_PUBLIC}; --allow-host {host} allows it")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet, also where an IPv6 address leads to one of IPv4."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.sixtofour is not None:
            ip = ip.sixtofour
        elif any(ip in network for network in _HOLD_IPV4):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip.is_site_local:  # of a network of one's own, before fc00::/7; Python calls it global
            return False
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
        with self.open(url, {"If-Match": etag} if etag else {}) as answer:
            answer.check(200)
            if answer.length is not None and answer.length > max_bytes:
                raise too_large(redact(url), answer.length, max_bytes)
            body = bytearray()
            while piece := answer.read1(min(_PIECE, max_bytes + 1 - len(body))):
                body += piece
                if len(body) > max_bytes:
                    raise TooLargeError(f"{redact(url)!r} has more than {max_bytes} bytes")
            return bytes(body)

    @contextmanager
    def open(
        self, url: str, headers: Mapping[str, str], *, deadline: float | None = None, stall: float = math.inf
    ) -> Generator[Answer]:
        """An answer, to be read within the block; redirects are followed.

        Args:
            url: with any signs: what no URL may hold is encoded.
            headers: of the request, besides those that are always sent.
            deadline: seconds for all of it, the body included; None: that of this object.
            stall: seconds within which something has to come.

        Raises:
            ReadError: it is refused, or does not come; its `errno` says whether it may another time.
        """
        end = time.monotonic() + (self._deadline if deadline is None else deadline)
        sent = {"Accept-Encoding": "identity", "User-Agent": "penstock", **headers}
        try:
            connection, answer = self._follow(url, sent, end, stall)
        except (OSError, http.client.HTTPException) as error:
            raise read_error(url, error) from None
        except ValueError as error:  # where a redirect leads, or a name that cannot be one of a host
            raise refused(url, f"it leads to no URL ({error})") from None
        reusable = False
        try:
            yield answer
            reusable = answer.close()
        finally:
            if not reusable:
                answer.close()
                connection.close()

    def _follow(
        self, url: str, headers: Mapping[str, str], end: float, stall: float
    ) -> tuple[PinnedConnection, Answer]:
        """The answer at the end of all redirects."""
        for _ in range(_HOPS + 1):
            connection, response = self._ask(url, headers, end, stall)
            if response.status not in _REDIRECTS:
                return connection, Answer(url, response)
            url = urljoin(url, response.getheader("Location", ""))
            response.close()
            connection.close()
        raise refused(url, "too many redirects")

    def _ask(
        self, url: str, headers: Mapping[str, str], end: float, stall: float
    ) -> tuple[PinnedConnection, http.client.HTTPResponse]:
        """The headers of an answer. A connection that was kept may have ended: then by a new one."""
        place = _place(url)
        while True:
            connection = self._connection(place)
            try:
                return connection, connection.ask(_target(url), headers, end, stall)
            except BaseException as error:
                connection.close()
                if connection.is_new or not isinstance(error, ConnectionError):
                    raise

    def _connection(self, place: _Place) -> PinnedConnection:
        """A connection to a host, which is checked first."""
        kept: dict[_Place, PinnedConnection] = self._own.__dict__.setdefault("kept", {})
        connection = kept.pop(place, None)
        if connection is None or connection.sock is None or is_stale(connection.sock):
            if connection is not None:
                connection.close()
            scheme, host, port = place
            connection = PinnedConnection(
                host, port, self._resolve(host, port), self._tls if scheme == "https" else None
            )
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
                raise not_public(host, address)
        return found


def _place(url: str) -> _Place:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused(url, f"no URL ({error})") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refused(url, "only http and https are read")
    if parts.username is not None or parts.password is not None:
        raise refused(url, "credentials in a URL")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _target(url: str) -> str:
    parts = urlsplit(url)
    query = "?" + quote(parts.query, safe=_SAFE + "?") if parts.query else ""
    return (quote(parts.path, safe=_SAFE) or "/") + query
