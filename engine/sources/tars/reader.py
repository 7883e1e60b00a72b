"""Reading members of tars at their offsets, in whichever process: the fetcher behind a tar's references."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final
from zlib import crc32

from ....fetch import too_large
from ....object_stores.options import StoreOptions
from ....references import Locator, Reference, Version
from ..container_finder import Containers
from ..containers import Container, Known, changed
from .members import BLOCK
from .place import Place, check_of

_FACTORY: Final = f"{__name__}:open_tars"

_OPEN: Final = 16
"""Tars that are kept open. Pictures come in the order of their tars."""


class TarReader:
    """Reads members by their place in a listing. Several threads at once; a tar is opened once for all of them.

    Args:
        options: how object stores are spoken to.
    """

    def __init__(self, options: StoreOptions) -> None:
        self._containers = Containers(options)
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, Known], Container] = OrderedDict()

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        """The data of a member, if it still is what was listed.

        Raises:
            ReadError: it is not, or cannot be read.
            TooLargeError: it has more bytes.
        """
        place = Place.of(ref, version)
        if version.size > max_bytes:
            raise too_large(ref, version.size, max_bytes)
        header, data = self._tar(ref, place).read_two(place.offset - BLOCK, BLOCK, version.size)
        if check_of(crc32(header), ref[place.name :]) != place.check:
            raise changed(ref)
        return data

    def beside(self, reference: Reference, place: Place, offset: int, size: int) -> bytes:
        """Some of the tar that a picture lies in.

        Raises:
            ReadError: it has changed since it was listed, or cannot be read.
        """
        return self._tar(reference.ref, place).read(offset, size)

    def _tar(self, ref: str, place: Place) -> Container:
        """The tar, open. One that is not kept any more is closed by whoever has it last."""
        name = ref[: place.name]
        with self._lock:
            found = self._open.pop((name, place.tar), None) or self._containers.open(name, place.tar)
            self._open[name, place.tar] = found
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return found


def locator_of(options: StoreOptions) -> Locator:
    """By which workers read."""
    return Locator(_FACTORY, options.dump())


def open_tars(options: str) -> TarReader:
    """What a worker calls: the text is the locator's."""
    return TarReader(StoreOptions.load(options))
