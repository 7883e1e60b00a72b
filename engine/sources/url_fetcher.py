"""Reads what URLs lead to, in any process: objects of stores, and pages of the web. See `references.Fetcher`."""

from __future__ import annotations

from ...errors import ObjectChangedError, ObjectStoreError
from ...object_stores import ObjectStores, StoreURL, as_read_error
from ...references import Version
from .containers import changed
from .safe_http import SafeHttp
from .url_options import UrlOptions


class UrlFetcher:
    """Reads objects and pages by their URLs, through one client for each store."""

    def __init__(self, options: UrlOptions) -> None:
        self._http = SafeHttp(options.allowed, options.deadline)
        self._stores = ObjectStores(options.stores)

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        """The bytes behind a URL, if they still are those that were listed."""
        if ref.partition("://")[0].lower() in ("http", "https"):
            return self._http.get(ref, max_bytes, version.tag)
        url = StoreURL.parse(ref)
        size, modified_ns, etag = version
        try:
            return self._stores.of(url).get(url.key, max_bytes=max_bytes, size=size, etag=etag, modified_ns=modified_ns)
        except ObjectChangedError as error:
            raise changed(ref) from error
        except ObjectStoreError as error:
            raise as_read_error(error) from error


def open_urls(options: str) -> UrlFetcher:
    """What a worker calls: the text is the locator's."""
    return UrlFetcher(UrlOptions.load(options))
