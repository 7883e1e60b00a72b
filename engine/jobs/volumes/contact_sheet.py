"""The first pages of volumes, before and after, kept small for a contact sheet."""

from __future__ import annotations

import threading
from typing import Final

from ...observe.volume_sheet import PagePair, page_thumbnail, volume_sheet
from .graph import Inspects
from .pages import DecodedFrame, PageLook, Record

_MOST: Final = 480
"""Pages of a sheet, about 20 KB a picture: a file that browsers open at once."""


class ContactSheet:
    """Watches a controller, and keeps small pictures of what it gets and what it makes of that.

    To be given to a `VolumeWorker` as its ``transform``. Pages that fail are not shown.

    Args:
        transform: a `TransformController`, or another one.
        pages: how many of each volume are shown, those with the lowest numbers.
    """

    def __init__(self, transform: Inspects, pages: int = 12) -> None:
        self._transform, self._pages = transform, pages
        self._mutex = threading.Lock()
        self._seen: dict[tuple[str, int], list[bytes]] = {}
        self._pairs: dict[tuple[str, int], PagePair] = {}

    def inspect(self, page: PageLook) -> DecodedFrame | Record:
        """What the controller says. Called in threads."""
        frame = page.frame
        where = frame.task.volume_id, frame.task.page
        if not self._shows(where):
            return self._transform.inspect(page)
        picture = page_thumbnail(frame.pixels)
        with self._mutex:
            seen = self._seen.setdefault(where, [])
            seen.append(picture)
        found = self._transform.inspect(page)
        if isinstance(found, Record):
            taken = frame.passes if found.best_pass is None else found.best_pass
            with self._mutex:
                self._pairs[where] = PagePair(found, seen[0], seen[min(taken, len(seen) - 1)] if taken else None)
        return found

    def html(self, where: str) -> str:
        """The sheet, as it is now.

        Args:
            where: what was read, as the user named it.
        """
        with self._mutex:
            pairs = [self._pairs[place] for place in sorted(self._pairs)]
        return volume_sheet(pairs, where)

    def _shows(self, where: tuple[str, int]) -> bool:
        with self._mutex:
            return where[1] < self._pages and (where in self._seen or len(self._seen) < _MOST)
