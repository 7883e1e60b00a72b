"""One store: read, list, write under conditions, delete. Synchronous: call it from threads, or from workers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ..errors import ObjectChangedError, ObjectNameError, ObjectStoreError, TooLargeError
from .failures import store_error, store_errors
from .forks import requested
from .in_flight import IN_FLIGHT
from .libraries import obstore_stores
from .listed import ObjectInfo, bare, infos, is_odd, ns_of
from .opening import open_client
from .options import StoreOptions
from .urls import StoreURL

if TYPE_CHECKING:
    from .s3 import PlainS3

_PAGE: Final = 1000
"""Objects that a store lists at once."""

_SECOND: Final = 10**9

_UNKNOWN: Final = 2**24
"""Bytes that an object of unknown size counts for while it is read."""


class ObjectStore:
    """A bucket, or a folder, whose objects are known by their whole keys. Threads may share it.

    To hand it to another process, hand over `url` and `options` and make it there: what is pickled of a client would
    have its secrets in it, and is refused. A request that has begun is not interrupted by a signal, so do not make one
    in the main thread; nor in the thread of an event loop, which it would stop.

    Args:
        url: of anything in it; of ``file`` the folder that keys are below of.
        options: how it is spoken to.

    Raises:
        ConfigError: there are no credentials, a library is missing, or it is no URL of a store.
    """

    def __init__(self, url: StoreURL | str, options: StoreOptions | None = None) -> None:
        where = StoreURL.parse(url) if isinstance(url, str) else url
        self.url = where if where.scheme == "file" else where.at("")
        self.options = options or StoreOptions()
        self._client = open_client(self.url, self.options)
        self._mutex = threading.Lock()
        self._boto3: Any = None
        self._plain: PlainS3 | None = None

    def __repr__(self) -> str:
        return f"<ObjectStore {self.url}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} is not pickled: it has credentials; hand over its url and options")

    def where(self, key: str) -> str:
        """The URL of an object, for people."""
        return f"{self.url}/{key}"

    def get(
        self,
        key: str,
        *,
        max_bytes: int,
        size: int = -1,
        etag: str = "",
        modified_ns: int = 0,
        span: tuple[int, int] | None = None,
    ) -> bytes:
        """An object's bytes.

        Args:
            key: which.
            max_bytes: more are refused before they are in memory.
            size: that it must have; -1 where that is not known.
            etag: that it must have; empty where that is not known.
            modified_ns: when it must have been changed last, to the second, where there is no etag; 0 where that is not
                known.
            span: only these bytes of it, the end excluded; `size` and `max_bytes` are about the span then.

        Raises:
            TooLargeError: it has more bytes.
            ObjectChangedError: it has another size, another etag, or was changed at another time.
            ObjectStoreError: it cannot be had: one of its kinds.
        """
        if is_odd(key):
            return self._plain_get(key, max_bytes, size, etag, modified_ns, span)
        requested()
        options: dict[str, Any] = {"if_match": f'"{etag}"'} if etag else {}
        if span is not None:
            options["range"] = span
        with IN_FLIGHT.hold(_expected(size, max_bytes)):
            try:  # not `store_errors`: of thousands a second, its two context managers would cost a tenth
                found = self._client.get(key, options=options or None)
                begin, end = found.range  # of a whole object its size, at a fifth of what `meta` costs
                self._check(key, end - begin, size, max_bytes)
                if not etag and modified_ns:
                    self._check_time(key, ns_of(found.meta["last_modified"]), modified_ns)
                return bytes(found.bytes())
            except Exception as error:  # noqa: BLE001  (raised again)
                raise store_error(self.where(key), error) from None

    def head(self, key: str) -> ObjectInfo:
        """What is known of an object.

        Raises:
            ObjectStoreError: it cannot be had: one of its kinds.
        """
        requested()
        with IN_FLIGHT.hold(), store_errors(self.where(key)):
            return infos([self._client.head(key)])[0]

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """The objects in a folder, at any depth, as the store lists them, in constant memory.

        S3, GCS and Azure list in the order of the keys' bytes; others by folder, and ``file`` in none.

        Args:
            prefix: whole parts of keys: ``vol_0`` is the folder ``vol_0/``, not ``vol_01``.
            after: only keys behind this one; for stores that list in order.

        Raises:
            ObjectNameError: the folder has a key that the client cannot name; all objects before are listed. See
                `list_plainly`.
            ObjectStoreError: the store refuses.
        """
        requested()
        with store_errors(self.where(prefix)), ThreadPoolExecutor(1, "penstock-list") as thread:
            pages = iter(self._client.list(prefix or None, offset=after or None, chunk_size=_PAGE))
            coming = thread.submit(next, pages, None)
            while (page := coming.result()) is not None:
                coming = thread.submit(next, pages, None)  # while this one is looked at
                yield from infos(page)

    def list_plainly(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """The objects whose keys begin so, with keys of every kind, as the store lists them. Only of S3, by boto3.

        Raises:
            ConfigError: boto3 is missing.
            ObjectStoreError: the store refuses, or is no S3.
        """
        return iter(self._plain_s3(prefix).list(prefix))

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """The folders directly in a folder, without a slash at the end, in the order of their names.

        Raises:
            ObjectStoreError: the store refuses.
        """
        requested()
        with store_errors(self.where(prefix)):
            return tuple(sorted(self._client.list_with_delimiter(prefix or None)["common_prefixes"]))

    def put(self, key: str, data: bytes | memoryview, *, new: bool = False, etag: str = "") -> str:
        """Write an object whole; it is there, or it is not. One request, so its size is bounded by memory.

        Args:
            key: which.
            data: its bytes.
            new: only where there is none; one of two writers at once has its way.
            etag: only in place of the object with this etag.

        Returns:
            Its etag; empty where the store has none.

        Raises:
            ObjectExistsError: there is one, and `new`. After a lost answer it may be our own: look what it says.
            ObjectChangedError: another one is there than `etag`.
            ObjectStoreError: the store refuses.
        """
        requested()
        mode: Any = "create" if new else {"e_tag": f'"{etag}"'} if etag else "overwrite"
        with IN_FLIGHT.hold(len(data)), store_errors(self.where(key)):
            put = self._client.put(key, data, mode=mode, use_multipart=False)
            return bare(put["e_tag"] or "")

    def copy(self, source: str, target: str) -> None:
        """Copy within the store, over what is there.

        Raises:
            ObjectStoreError: the store refuses.
        """
        requested()
        with IN_FLIGHT.hold(), store_errors(self.where(source)):
            self._client.copy(source, target)

    def delete(self, keys: str | Sequence[str]) -> None:
        """Delete objects; one that is not there is no error.

        Raises:
            ObjectStoreError: the store refuses.
        """
        requested()
        several: Iterable[str] = [keys] if isinstance(keys, str) else keys
        for key in several:
            with IN_FLIGHT.hold(), store_errors(self.where(key)):
                try:
                    self._client.delete(key)
                except FileNotFoundError:  # of a folder of this machine
                    continue

    def boto3(self) -> Any:
        """A client of boto3 for the same bucket, kept: for uploads that stay open. Threads may share it.

        Raises:
            ConfigError: boto3 is missing.
            ObjectStoreError: the store is no S3.
        """
        if self.url.scheme != "s3":
            raise ObjectStoreError(f"'{self.url}' is no S3: boto3 does not speak to it")
        requested()
        from .s3 import boto3_client

        with self._mutex:
            if self._boto3 is None:
                self._boto3 = boto3_client(self.url, self.options)
            return self._boto3

    def _plain_get(
        self, key: str, max_bytes: int, size: int, etag: str, modified_ns: int, span: tuple[int, int] | None
    ) -> bytes:
        plain = self._plain_s3(key)
        with IN_FLIGHT.hold(_expected(size, max_bytes)):
            data, found_ns = plain.get(key, etag, max_bytes, span)
        self._check(key, len(data), size, max_bytes)
        if not etag and modified_ns:
            self._check_time(key, found_ns, modified_ns)
        return data

    def _plain_s3(self, key: str) -> PlainS3:
        if self.url.scheme != "s3":
            raise ObjectNameError(f"{self.where(key)!r}: only S3 is read with keys such as a//b, .. or a line's end")
        from .s3 import PlainS3

        client = self.boto3()
        with self._mutex:
            if self._plain is None:
                self._plain = PlainS3(self.url, self.options, client)
            return self._plain

    def _check(self, key: str, found: int, size: int, max_bytes: int) -> None:
        if size >= 0 and found != size:
            raise ObjectChangedError(f"{self.where(key)!r} has changed: {found} bytes, and {size} were listed")
        if found > max_bytes:
            raise TooLargeError(f"{self.where(key)!r} has {found} bytes, over {max_bytes}")

    def _check_time(self, key: str, found_ns: int, modified_ns: int) -> None:
        if found_ns // _SECOND != modified_ns // _SECOND:
            raise ObjectChangedError(f"{self.where(key)!r} has changed: it has another time of its last change")


def _expected(size: int, max_bytes: int) -> int:
    return min(size if size >= 0 else _UNKNOWN, max_bytes)


def preload() -> None:
    """Import the client library without making a request: for the ancestor of processes that will be forked.

    Raises:
        ConfigError: it is not installed.
    """
    obstore_stores("object stores")
