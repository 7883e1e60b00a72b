"""Containers in object stores: read by ranges, each of them of the object that was listed or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from ...errors import ObjectChangedError, ObjectNotFoundError, ObjectStoreError, SourceError
from ...object_stores import ObjectInfo, ObjectStore, ObjectStores, StoreOptions, StoreURL, as_read_error
from .containers import BLOCK, Container, Known, changed
from .places import Place
from .shards import expanded


class ObjectContainer(Container):
    """An object.

    Args:
        store: that it is in.
        url: of it.
        known: what it must be.
    """

    def __init__(self, store: ObjectStore, url: StoreURL, known: Known) -> None:
        self.name, self.known = str(url), known
        self._store, self._key = store, url.key

    def read(self, offset: int, size: int) -> bytes:
        """By one request."""
        if not size:
            return b""
        try:
            return self._store.get(
                self._key,
                max_bytes=size,
                size=size,
                etag=self.known.etag,
                modified_ns=self.known.modified_ns,
                span=(offset, offset + size),
            )
        except ObjectChangedError as error:
            raise changed(self.name) from error
        except ObjectStoreError as error:
            raise as_read_error(error) from error

    def check(self) -> None:
        """Each read is of what is known, or fails."""

    def file(self, block: int = BLOCK) -> BinaryIO:
        """By requests of so many bytes."""
        return cast("BinaryIO", io.BufferedReader(_Ranged(self), block) if block else _Ranged(self))

    def close(self) -> None:
        """There is nothing to give up."""


class _Ranged(io.RawIOBase):
    """An object as a file."""

    def __init__(self, container: ObjectContainer) -> None:
        self._container, self._at = container, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._container.known.size}
        self._at = begin[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        size = max(0, min(len(into), self._container.known.size - self._at))
        into[:size] = self._container.read(self._at, size)
        self._at += size
        return size


class ObjectContainers:
    """Finds and opens them, through one client for each store. Threads may share it."""

    def __init__(self, options: StoreOptions) -> None:
        self._stores = ObjectStores(options)

    def check(self, pattern: str, what: str) -> None:
        """Whether there is an object of each name."""
        for name in expanded(pattern):
            place = Place.of(name)
            url = place.url
            if place.is_glob:
                if next(self._matching(place), None) is None:
                    raise SourceError(f"'{url}' matches nothing")
                continue
            try:
                self._stores.of(url).head(url.key)
            except ObjectNotFoundError:
                raise SourceError(f"'{url}': there is no such {what}") from None
            except ObjectStoreError as error:
                raise SourceError(f"'{url}' cannot be read: {error}") from error

    def names(self, pattern: str, mark: str) -> Sequence[str]:
        """Their URLs."""
        found: set[str] = set()
        for name in expanded(pattern):
            place = Place.of(name)
            if place.is_glob:
                found.update(str(place.url.at(each.key)) for each in self._matching(place))
            else:
                found.add(str(place.url))
        return sorted(found, key=lambda name: (name + mark).encode())

    def open(self, name: str, known: Known | None = None) -> Container:
        """An object; what it is now is asked for where it is not known."""
        url = StoreURL.parse(name)
        store = self._stores.of(url)
        if known is None:
            try:
                found = store.head(url.key)
            except ObjectStoreError as error:
                raise as_read_error(error) from error
            known = Known(found.size, found.modified_ns, found.etag)
        return ObjectContainer(store, url, known)

    def _matching(self, place: Place) -> Iterator[ObjectInfo]:
        """Objects whose keys match a glob."""
        try:
            yield from place.listed(self._stores.of(place.url))
        except ObjectStoreError as error:
            raise SourceError(f"'{place.url}' cannot be listed: {error}") from error
