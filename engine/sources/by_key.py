"""Pictures found again by the keys of their rows, for whoever shows them: objects, members of tars, rows of tables.

Nothing here is as it was listed: a key says no more than where a picture was. What is there now is taken for it.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from ...errors import ItemError, ReadError
from ...fetch import Fetchers
from ...object_stores.urls import is_store_url
from ...references import Reference, Version
from .entries import Broken, Item, path_of
from .paths import is_url
from .registry import SUFFIXES
from .url_options import UrlOptions

_MOST: Final = 32 << 20
"""Bytes of a picture. A larger one is not shown."""

_THREADS: Final = 8
"""Places that are read at once."""

_ROW: Final = re.compile(r"(.+)#(\d{9,})", re.DOTALL)
"""The key of a row of a table that has no other."""

_MEMBER: Final = "!"
"""Between the path of a tar and the name of a member, either of which may have more of them."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Place:
    """What keys have in common that are read one after the other: a tar or table, or an object of its own."""

    kind: str
    name: str


def read_by_keys(
    keys: Iterable[str], urls: UrlOptions, use: Callable[[bytes], _T], *, seconds: float
) -> Mapping[str, _T | Exception]:
    """What can be made of the pictures behind these keys, or why nothing can.

    Several places are read at once, what lies in one tar or table in one go. What has not been begun when the time is
    over is left; a read under way is waited for, which begins no attempt later than that.

    Args:
        keys: of rows: an URL, ``/path/of.tar!member``, ``/path/of.parquet#000000012``. Others are a ReadError.
        urls: how stores and hosts are spoken to.
        use: what is made of a picture's file, in one of the threads: no file is kept longer. What it raises, too, is
            an answer.
        seconds: for all of them together.
    """
    end = time.monotonic() + seconds
    groups: defaultdict[_Place, list[str]] = defaultdict(list)
    found: dict[str, _T | Exception] = {}
    for key in keys:
        place = _place_of(path_of(key))
        if place is None:
            found[key] = ReadError("its row has no path, and its key tells no place")
        else:
            groups[place].append(key)
    fetchers, urls = Fetchers(_MOST), _hurried(urls, seconds)

    def read(place: _Place) -> dict[str, _T | Exception]:
        answers: dict[str, _T | Exception] = {}
        try:
            for reference, key in _references(place, groups[place], urls, lambda: time.monotonic() >= end):
                try:
                    answers[key] = use(fetchers.read(reference))
                except Exception as error:  # noqa: BLE001  (of this picture alone)
                    answers[key] = error
        except Exception as error:  # noqa: BLE001  (of all that lie there)
            return dict.fromkeys(groups[place], error) | answers
        late = time.monotonic() >= end
        missing = ReadError("it took too long" if late else "it is not there any more")
        return dict.fromkeys(groups[place], missing) | answers

    with ThreadPoolExecutor(_THREADS, "penstock-by-key") as threads:
        for answers in threads.map(read, groups):
            found |= answers
    return found


def is_elsewhere(key: str) -> bool:
    """Whether a key is that of a picture which `read_by_keys` can read, and no file of this machine."""
    name = path_of(key)
    return not os.path.lexists(name) and _place_of(name) is not None


def _hurried(urls: UrlOptions, seconds: float) -> UrlOptions:
    """The same, with no more patience than somebody has who waits for a page."""
    stores = replace(
        urls.stores, timeout=min(urls.stores.timeout, seconds), retry_for=min(urls.stores.retry_for, seconds), retries=1
    )
    return replace(urls, stores=stores, deadline=min(urls.deadline, seconds))


def _place_of(name: str) -> _Place | None:
    """Where a picture lies that has this name."""
    if row := _ROW.fullmatch(name):
        table = row[1]
        scheme = _scheme_of(table) or _scheme_of(table.rpartition("#")[0])  # of Lance, the number of a fragment
        if scheme and scheme != "wds":
            return _Place(scheme, table)
    if (tar := _tar_of(name)) is not None:
        return _Place("wds", tar)
    return _Place("", name) if is_url(name) or is_store_url(name) else None


def _scheme_of(table: str) -> str | None:
    return next((scheme for end, scheme in SUFFIXES.items() if table.lower().endswith(end)), None)


def _tar_of(name: str) -> str | None:
    """The tar that a member's name begins with: a file of this machine, or an object that is called so."""
    at = -1
    while (at := name.find(_MEMBER, at + 1)) >= 0:
        tar = name[:at]
        if tar.lower().endswith(".tar") if is_store_url(tar) else os.path.isfile(tar):  # noqa: PTH113  (any text)
            return tar
    return None


def _references(
    place: _Place, keys: Sequence[str], urls: UrlOptions, is_late: Callable[[], bool]
) -> Iterator[tuple[Reference, str]]:
    """How each picture of a place is read, in the order in which that is fast, until it is late."""
    found = _in_tar(place.name, {*keys}, urls, is_late) if place.kind == "wds" else _of_each(place, keys, urls)
    for reference, key in found:
        if is_late():
            return
        yield reference, key


def _of_each(place: _Place, keys: Sequence[str], urls: UrlOptions) -> Iterator[tuple[Reference, str]]:
    if not place.kind:
        yield from ((Reference(urls.locator, place.name), key) for key in keys)
        return
    from .tables.reader import RowPlace, locator_of
    from .tables.spec import TableSpec

    locator = locator_of(TableSpec(place.kind, place.name), urls)
    for key in sorted(keys):  # the numbers of rows have leading zeros
        name = path_of(key)
        row = RowPlace(int(name.rpartition("#")[2]), "", place.name)
        yield Reference(locator, name, Version(tag=str(row))), key


def _in_tar(
    name: str, wanted: set[str], urls: UrlOptions, is_late: Callable[[], bool]
) -> Iterator[tuple[Reference, str]]:
    """One pass over the headers, which says where the members lie."""
    from .tars.source import TarSource

    broken: ItemError | None = None
    for entry in TarSource([name], urls.stores, later=True).members(name):
        if is_late() or not wanted:
            return
        if isinstance(entry, Item) and entry.reference is not None and entry.key in wanted:
            wanted.discard(entry.key)
            yield entry.reference, entry.key
        elif isinstance(entry, Broken):
            broken = entry.error
    if broken is not None and wanted:
        raise broken
