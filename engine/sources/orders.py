"""Which order a listing turns out to have: a store promises none, and most keep one."""

from __future__ import annotations

from .base import Order


class OrderSeen:
    """Is told of each name as it is listed, and knows which orders they still are in.

    A name that comes twice, or goes back, is in no order.
    """

    def __init__(self) -> None:
        self._part = -1
        self._bytes = self._path = b""
        self._is_bytes = self._is_path = True

    def take(self, part: int, name: str) -> None:
        """The next name, and the root that it comes from."""
        if not (self._is_bytes or self._is_path):
            return
        as_bytes = name.encode()
        as_path = as_bytes.replace(b"/", b"\0")
        if part == self._part:
            self._is_bytes = self._is_bytes and as_bytes > self._bytes
            self._is_path = self._is_path and as_path > self._path
        self._part, self._bytes, self._path = part, as_bytes, as_path

    @property
    def order(self) -> Order:
        """The best one."""
        return "bytes" if self._is_bytes else "path" if self._is_path else "given"
