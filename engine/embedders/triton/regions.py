"""Which segments one server has mapped for us, under which names.

Rules, each from an observed hazard: a segment is registered once, under one name, because a server that is given the
same key under two names may map the wrong file; names are unguessable and never used by two runs, because anybody's
request may name any region; nothing is unregistered without a name, which would drop everybody's.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Final

from ....shm import Place
from .owner import Owner, abandoned
from .transport import ServerSaid, Transport
from .waiting import Signal, Waits

_logger = logging.getLogger(__name__)

_ALREADY: Final = re.compile(r"already (in manager|registered|exists)", re.I)
_IN_USE: Final = re.compile(r"currently in use", re.I)
_RESTRICTED: Final = re.compile(r"restricted", re.I)
_LATER: Final = (408, 429, 503, 504)
_LOSSES: Final = 3
_IN_USE_SECONDS: Final = 1.0
_IN_USE_PAUSE: Final = 0.05


class Regions:
    """The regions of one owner at one server.

    Attributes:
        refused: why the server does not map our memory; None while it does.
    """

    def __init__(self, server: str, transport: Transport, waits: Waits, owner: Owner) -> None:
        self._server, self._transport, self._waits, self._owner = server, transport, waits, owner
        self._names: dict[str, str] = {}  # every segment that may be registered, under its name
        self._mapped: set[str] = set()  # segments that are
        self._pending: dict[str, Signal] = {}
        self._swept = False
        self._lost = False  # since the last `drop`
        self._losses = 0  # drops in a row that followed on a loss
        self.refused: str | None = None

    def name(self, place: Place) -> str | None:
        """Name of the region that a slot lies in, registered if need be; None: the server does not map our memory.

        Raises:
            OSError, ServerSaid: it cannot be asked now.
        """
        segment = place.segment
        while self.refused is None and segment not in self._mapped:
            pending = self._pending.get(segment)
            if pending is not None:
                pending.wait()
                continue
            self._pending[segment] = done = self._waits.signal()
            try:
                self._register(place)
            finally:
                del self._pending[segment]
                done.set()
        return None if self.refused is not None else self._names[segment]

    def lost(self, segment: str) -> None:
        """The server does not know the segment (any more)."""
        self._mapped.discard(segment)
        self._lost = True

    def worked(self) -> None:
        """The server has used our memory."""
        self._losses = 0

    def drop(self) -> bool:
        """Unregister all, because it is not known what the server still has; what is used next is registered again.

        Returns:
            Whether the server uses none of them any more.

        Raises:
            OSError, ServerSaid: it cannot be asked.
        """
        self._losses, self._lost = self._losses + self._lost, False
        # As a load balancer does that sends registrations to one server and requests to another.
        self.refused = "it forgets what it was shown" if self._losses >= _LOSSES else None
        free = [self._unregister(segment) for segment in list(self._names)]
        return all(free)

    def _register(self, place: Place) -> None:
        self._sweep()
        name = self._names.setdefault(place.segment, self._owner.region(len(self._names)))
        try:
            self._transport.register(name, "/" + place.segment, place.nbytes)
        except ServerSaid as error:
            if error.status in _LATER and not _RESTRICTED.search(error.text):
                raise
            # The name is ours alone and always means this segment: an earlier answer was lost.
            if not _ALREADY.search(error.text):
                del self._names[place.segment]
                self.refused = str(error)
                return
        self._mapped.add(place.segment)

    def _unregister(self, segment: str) -> bool:
        """Unregister one; False if the server still uses it after a second."""
        deadline = time.monotonic() + _IN_USE_SECONDS
        while True:
            try:
                self._transport.unregister(self._names[segment])
            except ServerSaid as error:
                if not _IN_USE.search(error.text):
                    raise
                if time.monotonic() > deadline:
                    return False
                self._waits.pause(_IN_USE_PAUSE)
            else:
                self._mapped.discard(segment)
                return True

    def _sweep(self) -> None:
        """Once: give back what runs that were killed on this host have left at this server."""
        if self._swept:
            return
        self._swept = True
        try:
            for region in abandoned(self._transport.regions()):
                self._transport.unregister(region)
                _logger.info(
                    "%s still held the shared memory of a process that is dead; it was given back", self._server
                )
        except ServerSaid as error:
            _logger.debug("%s does not list its shared memory: %s", self._server, error)
