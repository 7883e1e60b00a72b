"""Finding and opening containers by what the user named: files of this machine, and objects."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...object_stores.options import StoreOptions
from ...object_stores.urls import is_store_url
from ...registry import scheme_of
from .containers import Container, Known, LocalContainer
from .object_containers import ObjectContainers
from .paths import anchored, path_of_url
from .shards import check_named, files_named


def without_scheme(spec: str, scheme: str) -> str:
    """What a spec says behind its scheme, if it has one. A file of this odd name is itself."""
    return spec if scheme_of(spec) != scheme or os.path.lexists(spec) else spec.partition(":")[2]


def place_named(text: str) -> str:
    """Where a path or URL leads: the URL of a store as it is, else an absolute path."""
    return text if is_store_url(text) else anchored(path_of_url(text))


class Containers:
    """Finds and opens them.

    Args:
        options: how object stores are spoken to.
    """

    def __init__(self, options: StoreOptions) -> None:
        self._remote = ObjectContainers(options)

    def check(self, pattern: str, what: str) -> None:
        """Refuse a name that stands for nothing.

        Args:
            pattern: a path or URL, a glob, or with braces.
            what: it should be, for the message.

        Raises:
            SourceError: nothing is there.
        """
        if is_store_url(pattern):
            self._remote.check(pattern, what)
        else:
            check_named(pattern, what)

    def names(self, pattern: str, mark: str) -> Sequence[str]:
        """What a name stands for, in the order of the bytes of each name and ``mark``.

        Raises:
            SourceError: a store refuses.
        """
        return self._remote.names(pattern, mark) if is_store_url(pattern) else files_named(pattern, mark)

    def open(self, name: str, known: Known | None = None) -> Container:
        """One of them.

        Args:
            name: its path or URL.
            known: what it must be; by default what it is now.

        Raises:
            ReadError: it cannot be opened.
        """
        return self._remote.open(name, known) if is_store_url(name) else LocalContainer(name, known)
