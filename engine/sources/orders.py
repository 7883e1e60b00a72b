"""Which order a listing turns out to have: a store promises none, and most keep one."""

from __future__ import annotations

from .base import Order


class OrderSeen:
    """Takes each name as it is listed, and knows which orders they still are in.

    A name that comes twice, or goes back, is in no order.
    """

    def __init__(self) -> None:
        self._part = -1
        self._name = self._path = ""
        self._is_bytes = self._is_path = True

    def take(self, part: int, name: str) -> None:
        """The next name, and the root that it comes from."""
        path = name.replace("/", "\0")
        if part == self._part:  # text is in the order of its UTF-8
            if name <= self._name:
                self._is_bytes = False
            if path <= self._path:
                self._is_path = False
        self._part, self._name, self._path = part, name, path

    @property
    def order(self) -> Order:
        """The best one."""
        return "bytes" if self._is_bytes else "path" if self._is_path else "given"
