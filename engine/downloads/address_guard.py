"""Refuses connections to private addresses while somebody else's code chooses where to connect: yt-dlp follows what
pages say."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Any, Final

from ..sources.safe_http import is_public, not_public

_own: Final = threading.local()
"""Which host a thread asked the address of."""


class _Guard:
    """The one of this process.

    Attributes:
        allowed: hosts that may have private addresses; None while nobody asks for a guard.
        is_installed: whether the interpreter asks it.
    """

    allowed: frozenset[str] | None = None
    is_installed = False


@contextmanager
def guarded(allowed: Collection[str]) -> Generator[None]:
    """Within the block no socket of Python's connects to an address that is not of the internet.

    It is the interpreter itself that asks, before each connection and after the name was resolved, so a name that
    leads inwards, a redirect and an address in a playlist are all the same. A hook cannot be taken out again: for
    worker processes.

    Args:
        allowed: hosts that may: ``host`` or ``host:port``.
    """
    if not _Guard.is_installed:
        _Guard.is_installed = True
        sys.addaudithook(_look)
    _Guard.allowed = frozenset(host.lower() for host in allowed)
    try:
        yield
    finally:
        _Guard.allowed = None


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    allowed = _Guard.allowed
    if allowed is None:
        return
    if event == "socket.getaddrinfo":  # whose result is connected to next, by the same thread
        host, port = _text(arguments[0]), arguments[1]
        _own.host, _own.is_allowed = host, not allowed.isdisjoint({host, f"{host}:{port}"})
    elif event == "socket.connect" and isinstance(arguments[1], tuple):  # else a socket of this machine
        address = _text(arguments[1][0])
        if not getattr(_own, "is_allowed", False) and not _is_public(address):
            raise not_public(getattr(_own, "host", address), address)


def _is_public(address: str) -> bool:
    try:
        return is_public(address)
    except ValueError:  # a name, which nobody has resolved
        return False


def _text(host: object) -> str:
    return (host.decode(errors="replace") if isinstance(host, bytes) else str(host)).lower()
