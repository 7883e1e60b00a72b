"""All rows of a collection, a page at a time; and rows that are taken out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

from ...errors import SinkError
from ..rows import KEY, is_fit_key
from .collection import partitions
from .schema import CollectionSpec

Ask = Callable[[str, Callable[[Any, float], Any]], Any]
"""Has a request done, as often as it takes: what it is called, and what is called with a client and seconds."""

_PAGE: Final = 1000
"""Rows of one call."""


def pages(ask: Ask, spec: CollectionSpec, uri: str) -> Iterator[list[Any]]:
    """Rows as Milvus answers them, in the order of their keys. Each page is a request, so any may be repeated.

    Raises:
        SinkError: the store does not give them in that order, or a key cannot be asked for.
    """
    last = ""
    while rows := list(ask("scan", partial(_behind, spec, last))):
        keys = [str(row[KEY]) for row in rows]
        if any(before.encode() >= after.encode() for before, after in pairwise([last, *keys])):
            raise SinkError(f"{uri}: the store gave rows out of the order of their keys: they cannot all be read")
        last = keys[-1]
        if not is_fit_key(last):
            raise SinkError(f"{uri}: the key {last!r:.150} cannot be asked for: rows behind it cannot be read")
        yield rows


def _behind(spec: CollectionSpec, last: str, client: Any, seconds: float) -> Any:
    """The first rows with keys behind this one."""
    return client.query(
        spec.name,
        filter=f'{KEY} > "{last}"',
        limit=_PAGE,
        output_fields=["*"],
        consistency_level="Strong",
        timeout=seconds,
        # As the iterators of pymilvus ask: the least keys, and not any.
        iterator="True",
        reduce_stop_for_best="True",
        **partitions(spec),
    )


def delete_rows(ask: Ask, spec: CollectionSpec, keys: Sequence[str]) -> None:
    """Take out the rows with these keys, if they are there."""
    fit = [key for key in keys if is_fit_key(key)]
    for first in range(0, len(fit), _PAGE):
        ask("delete", partial(_delete, spec, fit[first : first + _PAGE]))


def _delete(spec: CollectionSpec, keys: list[str], client: Any, seconds: float) -> None:
    own = {"partition_name": spec.partition} if spec.partition else {}
    client.delete(spec.name, ids=keys, timeout=seconds, **own)
