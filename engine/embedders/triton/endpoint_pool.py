"""The servers of a model: which one is asked next, which are taken out, and when they are tried again."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Final, TypeVar

from ....backoff import Backoff
from ....errors import EmbedderError
from .address import HostPort
from .errors import ErrorKind, RequestError, kind_of
from .io_backend import IoBackend, Signal
from .regions import Regions
from .transport import Transport

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_BACKOFF: Final = Backoff(first=0.15, longest=7.5, least=1 / 3)
_NEWS_SECONDS: Final = 30.0
"""While nobody answers, it is said this often."""

_PROOF: Final = 2
"""A request of which a server died so often, while it was the only one there, is to blame."""

_FAREWELL_SECONDS: Final = 6.0
"""For all servers together: more than a call that computes nothing may take, less than the engine waits."""


class Endpoint:
    """One server.

    Attributes:
        server: where it is.
        capacity: requests under way at once.
        in_flight: requests that somebody waits for.
        late: requests that were given up and are still under way: they take up room at the server.
        healthy: whether it is asked.
        crashed: whether it has failed in a way that being ready does not disprove: the model must be tried.
        watched: whether a greenlet looks after it, until it is settled.
        probing: whether somebody is finding out whether it is well; `probe_at`: when that is done next.
        warned: whether it was said that it does not map shared memory.
        eject: ask it no more before a probe finds it well; set by its pool.
    """

    eject: Callable[[Exception], None]

    def __init__(self, server: HostPort, transport: Transport, regions: Regions, capacity: int) -> None:
        self.server, self.transport, self.regions, self.capacity = server, transport, regions, capacity
        self.in_flight = self.late = 0
        self.healthy = True
        self.crashed = False
        self.warned = False
        self.watched = self.probing = False
        self.probe_at = 0.0
        self.failed = 0

    @property
    def settled(self) -> bool:
        """Whether there is nothing to find out about it."""
        return self.healthy and self.regions.settled

    def revive(self, check: Callable[[Endpoint], bool]) -> bool:
        """Whether it can be asked again. Its registrations are made anew then, when they are needed.

        Raises:
            OSError, ServerError: it does not answer.
        """
        self.regions.reclaim()  # first, and without it: perhaps it is dead, and all slots wait for the proof
        if not check(self):
            return False
        if self.healthy:
            self.regions.retry_unregister()
        else:
            self.regions.drop()
        return self.late < self.capacity  # else more requests would only be given up, too


class EndpointPool:
    """All servers of a model, and the requests that wait for one.

    Used in one way of waiting. ``Lock`` is held for a few statements only and never across a wait, so it serves
    greenlets as well as threads.

    Args:
        name: of the embedder, for messages.
        check: asks a server whether it can serve the model, as the others do; raises what is in the way.
        trial: has a server embed black pictures.
        patience: seconds without an answer from anybody after which `run` gives up.
    """

    def __init__(
        self,
        name: str,
        endpoints: list[Endpoint],
        io: IoBackend,
        check: Callable[[Endpoint], bool],
        trial: Callable[[Endpoint], object],
        patience: float,
    ) -> None:
        self.endpoints = endpoints
        self._name, self._io, self._check, self._trial, self._patience = name, io, check, trial, patience
        self._lock = Lock()
        self._queue: deque[Signal] = deque()
        self._trouble_since: float | None = None
        self._trouble: Exception | None = None
        self._warned_at = 0.0
        for endpoint in endpoints:
            endpoint.eject = partial(self._eject, endpoint)

    def run(self, work: Callable[[Endpoint], T]) -> T:
        """Do `work` at the least loaded server; at another, or later, while servers do not answer.

        A request of which a server seems to have died is repeated alone there: whose fault it was shows then.

        Raises:
            EmbedderError: nobody has answered for so long.
            ServerError: a server answered that this cannot be done (see `errors`).
            OSError, ServerError: a fault `CRASHED`: servers that were well died of this, and of nothing else.
        """
        if not self._queue and any(e.healthy for e in self.endpoints) and not any(e.in_flight for e in self.endpoints):
            self._trouble_since = None  # nobody has asked, so nobody has waited
        crashes = 0
        while True:
            alone = crashes > 0
            endpoint = self._acquire(alone=alone)
            try:
                result = work(endpoint)
            except RequestError as error:
                fault = kind_of(error)
                if fault in (ErrorKind.REFUSED, ErrorKind.MISFIT):
                    self._answered(endpoint)
                    raise
                if fault is ErrorKind.CRASHED:
                    endpoint.crashed, crashes = True, crashes + 1
                self._eject(endpoint, error)
                if crashes > _PROOF:
                    self._trouble_since = time.monotonic()  # that it died is these rows' fault
                    raise
                if self._trouble_since is None:
                    self._trouble_since = time.monotonic()
                self._be_patient(flapping=True)
            else:
                self._answered(endpoint)
                return result
            finally:
                with self._lock:
                    endpoint.in_flight -= endpoint.capacity if alone else 1
                    self._wake()

    def probe_all(self) -> bool:
        """Try the servers that are asked on black pictures; those that fail are out until they do not.

        Returns:
            Whether one failed.
        """
        failed = False
        for endpoint in [endpoint for endpoint in self.endpoints if endpoint.healthy]:
            try:
                self._trial(endpoint)
            except RequestError as error:
                failed = endpoint.crashed = True
                self._eject(endpoint, error)
        return failed

    def close(self) -> None:
        """Give back all regions and connections. What a server still uses, or one that is away, keeps its regions."""
        goodbyes = [self._io.signal() for _ in self.endpoints]
        deadline = time.monotonic() + _FAREWELL_SECONDS
        try:
            for endpoint, done in zip(self.endpoints, goodbyes, strict=True):
                self._io.start(partial(self._farewell, endpoint, done))
            for done in goodbyes:
                done.wait(max(deadline - time.monotonic(), 0.0))
        finally:
            for endpoint in self.endpoints:
                endpoint.transport.close()

    def _farewell(self, endpoint: Endpoint, done: Signal) -> None:
        regions = endpoint.regions
        try:
            regions.reclaim()
            regions.drop()
        except Exception as error:  # noqa: BLE001  (whatever it is must not keep the others)
            _logger.info("%s: %s keeps the registered shared memory: %s", self._name, endpoint.server, _what(error))
        if regions.kept:
            _logger.warning(
                "%s: %s may still write to memory that it was lent: %d of its requests were never answered, and their "
                "slots are not used again",
                self._name,
                endpoint.server,
                regions.kept,
            )
        done.set()

    # -- whose turn it is ---------------------------------------------------------------------------------------------

    def _acquire(self, *, alone: bool) -> Endpoint:
        """Get the least loaded server that is well and has room, all of it where `alone`."""
        while (endpoint := self._in_line(alone)) is None:
            # Out of the line: a probe of a server that is silent takes seconds.
            for dead in self._due():
                self._probe(dead)
        return endpoint

    def _in_line(self, alone: bool) -> Endpoint | None:
        """Wait in line for a server; None: there are some that the caller shall probe."""
        ticket = self._io.signal()
        with self._lock:
            self._queue.append(ticket)
        try:
            while True:
                ticket.clear()
                with self._lock:
                    first = self._queue[0] is ticket
                    found = self._free(alone) if first else None
                    if found is not None:
                        found.in_flight += found.capacity if alone else 1
                        return found
                    if first and not self._io.beside and self._probes_due():
                        return None
                    until = self._next_probe()
                self._be_patient()
                ticket.wait(until)
        finally:
            with self._lock:
                self._queue.remove(ticket)
                self._wake()

    def _free(self, alone: bool) -> Endpoint | None:
        able = [e for e in self.endpoints if e.healthy and e.in_flight + e.late < e.capacity]
        if alone:
            able = [e for e in able if not e.in_flight]
        return min(able, key=lambda e: e.in_flight, default=None)

    def _wake(self) -> None:
        if self._queue:
            self._queue[0].set()

    # -- servers that do not answer -----------------------------------------------------------------------------------

    def _answered(self, endpoint: Endpoint) -> None:
        endpoint.failed = 0
        well = any(e.healthy for e in self.endpoints)
        self._trouble_since = None if well else time.monotonic()  # an answer of one that is out

    def _begin_waiting(self) -> None:
        """The clock of `patience` runs, at the latest, from when the last server that is well goes out."""
        if self._trouble_since is None and not any(e.healthy for e in self.endpoints):
            self._trouble_since = time.monotonic()

    def _eject(self, endpoint: Endpoint, error: Exception) -> None:
        with self._lock:
            self._trouble = error
            if not endpoint.healthy:
                return
            _logger.warning("%s: %s is not asked for now: %s", self._name, endpoint.server, _what(error))
            endpoint.healthy = False
            self._begin_waiting()
            self._postpone(endpoint, time.monotonic())
            self._wake()
            start, endpoint.watched = self._io.beside and not endpoint.watched, True
        if start:
            self._io.start(partial(self._watch, endpoint))

    def _watch(self, endpoint: Endpoint) -> None:
        """Probe it until it is well and needs nothing of ours any more.

        By itself: perhaps nobody asks for a server before it lets go of pinned slots.
        """
        while not endpoint.settled:
            self._io.pause(max(endpoint.probe_at - time.monotonic(), 0.0))
            endpoint.probing = True
            self._probe(endpoint)
        endpoint.watched = False

    def _postpone(self, endpoint: Endpoint, now: float) -> None:
        endpoint.failed += 1
        endpoint.probe_at = now + _BACKOFF.delay(endpoint.failed)

    def _probes_due(self) -> list[Endpoint]:
        now = time.monotonic()
        return [e for e in self.endpoints if not (e.healthy or e.probing) and e.probe_at <= now]

    def _due(self) -> list[Endpoint]:
        """Servers that this caller shall probe, where nobody does it beside him."""
        with self._lock:
            due = self._probes_due()
            for endpoint in due:
                endpoint.probing = True
            return due

    def _next_probe(self) -> float | None:
        """Seconds to wait at most before looking again; None: until somebody says so."""
        waiting = [e.probe_at for e in self.endpoints if not (e.healthy or e.probing)]
        if waiting:
            return max(min(waiting) - time.monotonic(), 0.001)
        return None if any(e.healthy for e in self.endpoints) else 1.0

    def _probe(self, endpoint: Endpoint) -> None:
        well, error = False, self._trouble
        try:
            well = endpoint.revive(self._well)
        except Exception as trouble:  # noqa: BLE001  (it says something that it should not: it is not well)
            error = trouble
        with self._lock:
            if well and not endpoint.healthy:
                _logger.warning("%s: %s answers again", self._name, endpoint.server)
            endpoint.probing, endpoint.healthy = False, well
            if not well:
                self._trouble = error
                self._begin_waiting()
            if not endpoint.settled:
                self._postpone(endpoint, time.monotonic())
            self._wake()

    def _well(self, endpoint: Endpoint) -> bool:
        if not self._check(endpoint):
            return False
        if endpoint.crashed:
            self._trial(endpoint)
            endpoint.crashed = False
        return True

    def _be_patient(self, *, flapping: bool = False) -> None:
        """Say once a while that nobody answers, and in the end give up."""
        since, now = self._trouble_since, time.monotonic()
        if since is None or (any(e.healthy for e in self.endpoints) and not flapping):
            return
        urls = ", ".join(str(endpoint.server) for endpoint in self.endpoints)
        if now - since > self._patience:
            raise EmbedderError(
                f"{self._name}: no answer from {urls} for {self._patience:g} s; the last trouble was: "
                f"{_what(self._trouble)}. Is the server up and the model loaded? The embedder's options patience= "
                f"(now {self._patience:g} s) and timeout= say how long to wait."
            ) from self._trouble
        if now - since > _NEWS_SECONDS and now - self._warned_at > _NEWS_SECONDS:
            self._warned_at = now
            _logger.warning(
                "%s: no answer from %s for %.0f s (%s); trying on", self._name, urls, now - since, _what(self._trouble)
            )


def _what(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
