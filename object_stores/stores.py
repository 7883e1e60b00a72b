"""One client for each store, opened when it is first asked for."""

from __future__ import annotations

import threading

from .options import StoreOptions
from .store import ObjectStore
from .urls import StoreURL


class ObjectStores:
    """The stores that URLs lead to, kept. Threads may share it.

    Args:
        options: how all of them are spoken to.
    """

    def __init__(self, options: StoreOptions | None = None) -> None:
        self._options = options
        self._open: dict[str, ObjectStore] = {}
        self._mutex = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, url: StoreURL) -> ObjectStore:
        """The store that a URL is in.

        Raises:
            ConfigError: there are no credentials, or a library is missing.
        """
        root = url.root
        with self._mutex:
            found = self._open.get(root)
            if found is None:
                found = self._open[root] = ObjectStore(url.at(""), self._options)
            return found
