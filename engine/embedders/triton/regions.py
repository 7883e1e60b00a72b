"""Which segments one server has mapped for us, under which names.

Rules, each from an observed hazard: a segment is registered once at a time, under one name, because a server that is
given the same key under two names may map the wrong file; names are unguessable and never used by two runs, because
anybody's request may name any region; nothing is unregistered without a name, which would drop everybody's. What a
server may still write to is not used again before its process is seen to have it no longer (see `processes`).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final

from ....shm import Place
from .io_backend import IoBackend, Signal
from .owner import Owner, abandoned
from .processes import has_mapped, users
from .transport import ServerError, Transport

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

    Args:
        pending: segments that are being registered, at whichever of the owner's servers; shared by all of them. One
            after the other, so that who has mapped a segment afterwards and had not before is the server.

    Attributes:
        refused: why the server does not map our memory; None while it does.
    """

    def __init__(
        self, server: str, transport: Transport, io: IoBackend, owner: Owner, pending: dict[str, Signal]
    ) -> None:
        self._server, self._transport, self._io, self._owner = server, transport, io, owner
        self._pending = pending
        self._numbers = count()
        self._names: dict[str, str] = {}  # every segment that may be registered, under its name
        self._mapped: set[str] = set()  # segments that are
        self._leaving: set[str] = set()  # segments that the server shall let go of, and may still use
        self._users: dict[str, frozenset[int]] = {}  # processes of the server that were seen to have mapped a segment
        self._kept: dict[str, list[Callable[[], None]]] = {}
        self._swept = False
        self._lost = False  # since the last `drop`
        self._losses = 0  # drops in a row that followed on a loss
        self.refused: str | None = None

    def name(self, place: Place) -> str | None:
        """Name of the region that a slot lies in, registered if need be.

        Returns:
            None: the server does not map our memory (see `refused`), or it has yet to let go of this segment.

        Raises:
            OSError, ServerError: it cannot be asked now.
        """
        segment = place.segment
        while self.refused is None and segment not in self._leaving:
            if segment in self._mapped:
                return self._names[segment]
            pending = self._pending.get(segment)
            if pending is not None:
                pending.wait()
                continue
            self._pending[segment] = done = self._io.signal()
            try:
                self._register(place)
            finally:
                del self._pending[segment]
                done.set()
        return None

    def watched(self, segment: str) -> bool:
        """Whether it can be found out when the server can no longer write to a segment."""
        return bool(self._users.get(segment))

    def keep(self, segment: str, release: Callable[[], None]) -> None:
        """Call `release` when the server can no longer write to the segment: an answer never came."""
        self._kept.setdefault(segment, []).append(release)

    @property
    def settled(self) -> bool:
        """Whether nothing of ours is used there that nobody waits for."""
        return not (self._kept or self._leaving)

    @property
    def kept(self) -> int:
        """How many releases have not been called."""
        return sum(map(len, self._kept.values()))

    def lost(self, segment: str) -> None:
        """The server does not know the segment (any more)."""
        self._mapped.discard(segment)
        self._lost = True

    def worked(self) -> None:
        """The server has used our memory."""
        self._losses = 0

    def reclaim(self) -> None:
        """Release what was kept in segments that no process has mapped any more, without asking the server."""
        for segment in [segment for segment in self._kept if not self._in_memory(segment)]:
            self._left(segment)

    def drop(self) -> bool:
        """Unregister all, because it is not known what the server still has; what is used next is registered again.

        Returns:
            Whether the server has let go of all of them. The others are not named before a later call has seen that.

        Raises:
            OSError, ServerError: it cannot be asked.
        """
        self._losses, self._lost = self._losses + self._lost, False
        # As a load balancer does that sends registrations to one server and requests to another.
        self.refused = "it forgets what it was shown" if self._losses >= _LOSSES else None
        while self._pending:
            next(iter(self._pending.values())).wait()
        self._leaving.update(self._names, self._kept)
        self._mapped.clear()
        return self.retry_unregister()

    def retry_unregister(self) -> bool:
        """Have the server let go of what it has not yet of all that `drop` was about. Returns and raises as `drop`."""
        deadline = time.monotonic() + _IN_USE_SECONDS
        while not self._all_left() and time.monotonic() < deadline:
            self._io.pause(_IN_USE_PAUSE)
        return not self._leaving

    def _all_left(self) -> bool:
        """Whether the server has let go of all that shall leave."""
        done = [segment for segment in sorted(self._leaving) if self._unregister(segment)]
        # Newer releases answer at once and list a region for as long as a request uses it.
        listed = set(self._transport.regions()) if done else set[str]()
        for segment in done:
            if self._names.get(segment) not in listed and not self._in_memory(segment):
                self._left(segment)
        return not self._leaving

    def _left(self, segment: str) -> None:
        """Nobody can use it under its name any more: next time it has another, which no old request knows."""
        self._leaving.discard(segment)
        self._mapped.discard(segment)
        self._names.pop(segment, None)
        self._users.pop(segment, None)
        for release in self._kept.pop(segment, ()):
            release()

    def _in_memory(self, segment: str) -> bool:
        return any(has_mapped(pid, segment) for pid in self._users.get(segment, ()))

    def _register(self, place: Place) -> None:
        self._sweep()
        segment = place.segment
        if segment not in self._names:
            self._names[segment] = self._owner.region(next(self._numbers))
        before = self._io.call(partial(users, segment))
        try:
            self._transport.register(self._names[segment], "/" + segment, place.nbytes)
        except ServerError as error:
            if error.status in _LATER and not _RESTRICTED.search(error.text):
                raise
            # The name is ours alone and always means this segment: an earlier answer was lost.
            if not _ALREADY.search(error.text):
                del self._names[segment]
                self.refused = str(error)
                return
        # Another server may answer at the same address: who was seen once is watched until it is gone.
        found = self._io.call(partial(users, segment)) - before
        self._users[segment] = self._users.get(segment, frozenset()) | found
        self._mapped.add(segment)

    def _unregister(self, segment: str) -> bool:
        """Unregister one; False if the server refuses because a request uses it."""
        name = self._names.get(segment)
        try:
            if name is not None:
                self._transport.unregister(name)
        except ServerError as error:
            if not _IN_USE.search(error.text):
                raise
            return False
        return True

    def _sweep(self) -> None:
        """Once: give back what runs that were killed on this host have left at this server."""
        if self._swept:
            return
        try:
            for region in abandoned(self._transport.regions()):
                self._give_back(region)
        except ServerError as error:
            _logger.debug("%s does not list its shared memory: %s", self._server, error)
        self._swept = True

    def _give_back(self, region: str) -> None:
        try:
            self._transport.unregister(region)
        except ServerError as error:
            _logger.debug("%s keeps the shared memory of a process that is dead: %s", self._server, error)
        else:
            _logger.info("%s still held the shared memory of a process that is dead; it was given back", self._server)
