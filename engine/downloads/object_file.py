"""A video that is an object of a store: whole, in pieces, and all of them of one version."""

from __future__ import annotations

import errno
from typing import Final

from ...errors import DownloadError, ObjectChangedError, ObjectStoreError, UnreadableError
from ...object_stores import ObjectStores, StoreURL, as_read_error
from .part_file import PartFile
from .sniff import ENOUGH, kind_of

_PIECE: Final = 2**23


def fetch_object(stores: ObjectStores, url: str, part: PartFile) -> None:
    """Get the rest of an object.

    Args:
        stores: clients.
        url: of the object.
        part: where to.

    Raises:
        UnreadableError: it is no video.
        TooLargeError: it has more bytes than allowed.
        DownloadError: it cannot be had; its `errno` says whether it may another time.
        OSError: the disk refuses.
    """
    where = StoreURL.parse(url)
    store = stores.of(where)
    try:
        found = store.head(where.key)
        tag = f'"{found.etag}"' if found.etag else ""
        if tag and part.tag == tag and part.total == found.size:
            part.go_on(part.have, found.size)
        else:
            part.begin(tag, found.size)
        while part.have < found.size:
            span = (part.have, min(part.have + _PIECE, found.size))
            data = store.get(where.key, max_bytes=_PIECE, etag=found.etag, modified_ns=found.modified_ns, span=span)
            if not part.have and kind_of(data[:ENOUGH]) != "video":
                part.discard()
                raise UnreadableError(f"{url!r} is no video")
            part.write(data)
    except ObjectChangedError as error:
        part.discard()
        raise _failure(str(error), errno.EAGAIN) from None
    except ObjectStoreError as error:
        found_error = as_read_error(error)
        raise _failure(str(found_error), found_error.errno) from None
    if not found.size:
        part.discard()
        raise UnreadableError(f"{url!r} is empty")


def _failure(said: str, number: int | None) -> DownloadError:
    error = DownloadError(said)
    error.errno = number
    return error
