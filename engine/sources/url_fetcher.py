"""Reads what URLs lead to, in any process: objects of stores, and pages of the web. See `references.Fetcher`."""

from __future__ import annotations

import threading

from ...errors import ObjectChangedError, ObjectStoreError, ReadError
from ...object_stores import ObjectStore, StoreURL, as_read_error
from ...references import Version
from .safe_http import SafeHttp
from .url_options import UrlOptions


class UrlFetcher:
    """Reads objects and pages by their URLs, through one client for each store."""

    def __init__(self, options: UrlOptions) -> None:
        self._options = options
        self._http = SafeHttp(options.allowed, options.deadline)
        self._stores: dict[str, ObjectStore] = {}
        self._mutex = threading.Lock()

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        """The bytes behind a URL, if they still are those that were listed."""
        if ref.partition("://")[0].lower() in ("http", "https"):
            return self._http.get(ref, max_bytes, version.tag)
        root, key = _split(ref)
        size, modified_ns, etag = version
        try:
            store = self._stores.get(root) or self._opened(ref)
            return store.get(key, max_bytes=max_bytes, size=size, etag=etag, modified_ns=modified_ns)
        except ObjectChangedError as error:
            raise ReadError(f"{ref!r} has changed since it was listed: --update takes it as it is now") from error
        except ObjectStoreError as error:
            raise as_read_error(error) from error

    def _opened(self, ref: str) -> ObjectStore:
        url, root = StoreURL.parse(ref), _split(ref)[0]
        with self._mutex:
            if root not in self._stores:
                self._stores[root] = ObjectStore(url.at(""), self._options.stores)
            return self._stores[root]


def _split(ref: str) -> tuple[str, str]:
    """The store, and the key in it."""
    scheme, _, rest = ref.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key


def open_urls(options: str) -> UrlFetcher:
    """What a worker calls: the text is the locator's."""
    return UrlFetcher(UrlOptions.load(options))
