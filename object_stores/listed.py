"""What is known of an object without reading it, and which keys the client library can name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

_ODD: Final = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")
"""An empty part, ``.`` or ``..``, a control character."""


class ObjectInfo(NamedTuple):
    """An object as it is listed.

    Attributes:
        key: of ``file`` the path below the folder.
        size: bytes.
        modified_ns: time of the last change in ns since 1970; 0 where the store does not say.
        etag: without quotes; empty where the store has none.
    """

    key: str
    size: int
    modified_ns: int = 0
    etag: str = ""


def is_odd(key: str) -> bool:
    """Whether obstore cannot name it; boto3 can."""
    return _ODD.search(key) is not None


def infos(metas: Iterable[Any]) -> list[ObjectInfo]:
    """Of what obstore says of the objects of a page."""
    new = tuple.__new__  # of millions: at a third of what the class costs; and `ns_of` and `bare` are done here
    return [
        new(
            ObjectInfo,
            (
                meta["path"],
                meta["size"],
                round(meta["last_modified"].timestamp() * 1e6) * 1000,
                (meta["e_tag"] or "").strip('"'),
            ),
        )
        for meta in metas
    ]


def ns_of(when: datetime) -> int:
    """Nanoseconds since 1970, exact to the microsecond."""
    return round(when.timestamp() * 1e6) * 1000


def bare(etag: str) -> str:
    """An etag without its quotes, by which all clients know the same one."""
    return etag.strip('"')
