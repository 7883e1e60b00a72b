"""All rows of a collection, a page at a time; and rows that are taken out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from ...errors import SinkError
from ..rows import KEY, is_fit_key
from .collection import partitions
from .schema import CollectionSpec

Ask = Callable[[str, Callable[[Any, float], Any]], Any]
"""Has a request done, as often as it takes: what it is called, and what is called with a client and seconds."""

_PAGE: Final = 1000
"""Rows of one call."""

_KEYS: Final = 8000
"""Keys of one call; Milvus gives 16,384 at most."""


def pages(ask: Ask, spec: CollectionSpec, uri: str) -> Iterator[list[Any]]:
    """Every row once, as Milvus answers it.

    A limited query gives any rows that match, in no order that can be relied on (Milvus 2.3 leaves some out of an order
    by key). But one that gives fewer rows than its limit has given all. So keys are asked for by ranges, which are cut
    in two until that is so, and then the rows by their keys.

    Raises:
        SinkError: a key cannot be asked for.
    """
    ranges: list[tuple[str, str]] = [("", "")]
    while ranges:
        low, high = ranges.pop()
        keys = [str(row[KEY]) for row in ask("scan", partial(_keys, spec, low, high))]
        if unfit := [key for key in keys if not is_fit_key(key)]:
            raise SinkError(f"{uri}: the key {unfit[0]!r:.150} cannot be asked for: rows cannot all be read")
        keys.sort(key=str.encode)
        if len(keys) == _KEYS:
            middle = keys[_KEYS // 2]
            ranges += [(middle, high), (low, middle)]
            continue
        for first in range(0, len(keys), _PAGE):
            if rows := list(ask("scan", partial(_rows, spec, keys[first : first + _PAGE]))):
                yield rows  # else all of them have gone meanwhile


def key_range(low: str, high: str) -> str:
    """The expression for keys behind the one, up to the other; an empty one is no bound.

    The only one that is put together, since Milvus Lite and Milvus 2.3 know no parameters: of keys that cannot end a
    text in it.

    Raises:
        SinkError: a key holds a quote, a backslash or a control character.
    """
    for key in (low, high):
        if key and not is_fit_key(key):
            raise SinkError(f"the key {key!r:.150} cannot be asked for: rows cannot all be read")
    return f'{KEY} > "{low}"' + (f' and {KEY} <= "{high}"' if high else "")


def _keys(spec: CollectionSpec, low: str, high: str, client: Any, seconds: float) -> Any:
    return client.query(
        spec.name,
        filter=key_range(low, high),
        limit=_KEYS,
        output_fields=[KEY],
        consistency_level="Strong",
        timeout=seconds,
        **partitions(spec),
    )


def _rows(spec: CollectionSpec, keys: list[str], client: Any, seconds: float) -> Any:
    return client.get(
        spec.name, keys, output_fields=["*"], consistency_level="Strong", timeout=seconds, **partitions(spec)
    )


def delete_rows(ask: Ask, spec: CollectionSpec, keys: Sequence[str]) -> None:
    """Take out the rows with these keys, if they are there."""
    fit = [key for key in keys if is_fit_key(key)]
    for first in range(0, len(fit), _PAGE):
        ask("delete", partial(_delete, spec, fit[first : first + _PAGE]))


def _delete(spec: CollectionSpec, keys: list[str], client: Any, seconds: float) -> None:
    own = {"partition_name": spec.partition} if spec.partition else {}
    client.delete(spec.name, ids=keys, timeout=seconds, **own)
