"""A data set in an object store: parts are staged and copied; what two could write is written under conditions."""

from __future__ import annotations

import io
import mmap
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from ...errors import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectNameError,
    ObjectNotFoundError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    SinkError,
    SinkUnavailableError,
)
from ...object_stores.listed import ObjectInfo
from ...object_stores.options import StoreOptions
from ...object_stores.store import ObjectStore
from ...object_stores.urls import StoreURL
from .lease import Lease, is_live
from .place import STAGING, Hold, PartFile, Place, Sealed, Stored, staging

_MOST: Final = 2**32
"""Bytes of anything that is read whole."""

_LEASE: Final = "alive.json"


class ObjectPlace(Place):
    """Objects below a prefix.

    Args:
        url: ``gs://bucket/prefix``, ``az://container/prefix``.
        options: how the store is spoken to.
    """

    def __init__(self, url: StoreURL, options: StoreOptions | None = None) -> None:
        self._url, self._options = url.at(url.key.strip("/")), options
        self._mutex = threading.Lock()
        self._opened: ObjectStore | None = None

    @property
    def uri(self) -> str:
        return str(self._url)

    @property
    def store(self) -> ObjectStore:
        """The store, opened when it is first needed.

        Raises:
            ConfigError: there are no credentials, or a library is missing.
        """
        with self._mutex:
            if self._opened is None:
                self._opened = ObjectStore(self._url, self._options)
            return self._opened

    def key(self, name: str) -> str:
        """The whole key of a name."""
        return f"{self._url.key}/{name}" if self._url.key else name

    def read(self, name: str) -> bytes | None:
        with errors():
            try:
                return self.store.get(self.key(name), max_bytes=_MOST)
            except ObjectNotFoundError:
                return None

    def open(self, name: str) -> Any:
        with errors():
            if name.startswith(STAGING):  # some megabytes, of which all are wanted
                return io.BytesIO(self.store.get(self.key(name), max_bytes=_MOST))
            return _Ranges(self.store, self.store.head(self.key(name)))

    def put(self, name: str, data: Any) -> None:
        with errors():
            self.store.put(self.key(name), memoryview(data).cast("B"))  # of bytes: the client takes no other

    def create(self, name: str, data: bytes) -> bool:
        with errors():
            try:
                self.store.put(self.key(name), data, new=True)
            except ObjectExistsError:
                return False
            return True

    def replace(self, name: str, data: bytes, was: bytes | None) -> bool:
        if was is None:
            return self.create(name, data)
        with errors():
            try:
                etag = self.store.head(self.key(name)).etag
                if self.store.get(self.key(name), max_bytes=_MOST, etag=etag) != was:
                    return False
                self.store.put(self.key(name), data, etag=etag)
            except (ObjectChangedError, ObjectNotFoundError):
                return False
            return True

    def delete(self, names: Iterable[str]) -> None:
        with errors():
            self.store.delete([self.key(name) for name in names])

    def stored(self, under: str = "") -> list[Stored]:
        prefix = self.key(under).strip("/")
        skip = len(self.key(""))
        with errors():
            return sorted((Stored(each.key[skip:], each.size) for each in self._listed(prefix)), key=lambda it: it.name)

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        try:
            yield from list(self.store.list(prefix))
        except ObjectNameError:  # somebody else's key
            yield from self.store.list_plainly(f"{prefix}/" if prefix else "")

    def begin(self, job: str, name: str) -> PartFile:
        return _StagedPart(self, job, name)

    def complete(self, job: str, part: Sealed) -> None:
        staged, shown = self.key(staging(job, part.name)), self.key(part.name)
        with errors():
            with suppress(ObjectNotFoundError):  # shown before
                self.store.copy(staged, shown)
            if self._size(shown) != part.nbytes:
                raise SinkError(f"{self.uri}: {part.name} is not there any more")
            self.store.delete(staged)

    def _size(self, key: str) -> int:
        try:
            return self.store.head(key).size
        except ObjectNotFoundError:
            return -1

    def sweep(self, job: str) -> None:
        lease = staging(job, _LEASE)
        self.delete(each.name for each in self.stored(staging(job)) if each.name != lease)

    def hold(self, job: str) -> Hold:
        with errors():
            return Lease(self.store, self.key(staging(job, _LEASE)))

    def take(self, job: str) -> Hold | None:
        if self.is_live(job):
            return None
        with errors():
            return Lease(self.store, self.key(staging(job, _LEASE)), "cleaner")

    def is_live(self, job: str) -> bool:
        with errors():
            return is_live(self.store, self.key(staging(job, _LEASE)))


class _StagedPart(PartFile):
    """A file of this machine until it is sealed; an object in the staging folder then."""

    def __init__(self, place: ObjectPlace, job: str, name: str) -> None:
        super().__init__()
        self._place, self._job, self._name = place, job, name
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by seal or abandon)

    def _append(self, data: memoryview) -> None:
        with errors():
            self._file.write(data)

    def seal(self, rows: int) -> Sealed:
        self._file.flush()
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            self._place.put(staging(self._job, self._name), mapped)
        self._file.close()
        return Sealed(self._name, rows, self._nbytes, self._sha256.hexdigest())

    def abandon(self) -> None:
        self._file.close()


class _Ranges(io.RawIOBase):
    """An object as a file that is read piece by piece."""

    def __init__(self, store: ObjectStore, found: ObjectInfo) -> None:
        super().__init__()
        self._store, self._found, self._at = store, found, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._found.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """So many bytes; fewer at the end only."""
        end = self._found.size if size < 0 else min(self._at + size, self._found.size)
        if end <= self._at:
            return b""
        data = self._store.get(self._found.key, max_bytes=_MOST, etag=self._found.etag, span=(self._at, end))
        self._at = end
        return data


@contextmanager
def errors() -> Generator[None]:
    """What the store refuses becomes an error of the sink; its message says where."""
    try:
        yield
    except ObjectStoreUnavailableError as error:
        raise SinkUnavailableError(f"{error}; what is there stays: run the job again later and it goes on") from error
    except ObjectStoreError as error:
        raise SinkError(str(error)) from error
