"""The servers of a model: which one is asked next, which are taken out, and when they are tried again."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Final, TypeVar

from ....errors import EmbedderError, PenstockError
from .address import HostPort
from .faults import Fault, Trouble, fault_of
from .regions import Regions
from .transport import Transport
from .waiting import Signal, Waits

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_BACKOFF: Final = 0.1
_LAST_BACKOFF: Final = 5.0
_NEWS_SECONDS: Final = 30.0
"""While nobody answers, it is said this often."""


class Endpoint:
    """One server.

    Attributes:
        server: where it is.
        capacity: requests under way at once.
        in_flight: requests that somebody waits for.
        late: requests that were given up and are still under way: they take up room at the server.
        healthy: whether it is asked.
        crashed: whether the model's process has died there, and nothing was answered since.
        held: what to call once the server is known to have finished with memory whose answer never came.
        probing: whether somebody is finding out whether it is well; `probe_at`: when that is done next.
        warned: whether it was said that it does not map shared memory.
        take_out: ask it no more before a probe finds it well; set by its fleet.
    """

    take_out: Callable[[Exception], None]

    def __init__(self, server: HostPort, transport: Transport, regions: Regions, capacity: int) -> None:
        self.server, self.transport, self.regions, self.capacity = server, transport, regions, capacity
        self.in_flight = self.late = 0
        self.healthy = True
        self.crashed = False
        self.held: list[Callable[[], None]] = []
        self.warned = False
        self.probing = False
        self.probe_at = 0.0
        self.backoff = _FIRST_BACKOFF

    def let_go(self) -> None:
        """The server is done with all requests whose answers never came, or gone."""
        held, self.held = self.held, []
        for release in held:
            release()

    def revive(self, check: Callable[[Endpoint], bool]) -> bool:
        """Whether it can be asked again. Its registrations are made anew then, when they are needed.

        Raises:
            OSError, ServerSaid: it does not answer.
        """
        if not check(self):
            return False
        if self.regions.drop():
            self.let_go()
        return self.late < self.capacity  # else more requests would only be given up, too


class Fleet:
    """All servers of a model, and the requests that wait for one.

    Used in one way of waiting. ``Lock`` is held for a few statements only and never across a wait, so it serves
    greenlets as well as threads.

    Args:
        name: of the embedder, for messages.
        check: asks a server whether it can serve the model, as the others do.
        patience: seconds without an answer from anybody after which `run` gives up.
    """

    def __init__(
        self, name: str, endpoints: list[Endpoint], waits: Waits, check: Callable[[Endpoint], bool], patience: float
    ) -> None:
        self.endpoints = endpoints
        self._name, self._waits, self._check, self._patience = name, waits, check, patience
        self._lock = Lock()
        self._queue: deque[Signal] = deque()
        self._trouble_since: float | None = None
        self._trouble: Exception | None = None
        self._told = 0.0
        for endpoint in endpoints:
            endpoint.take_out = partial(self._take_out, endpoint)

    def run(self, work: Callable[[Endpoint], T]) -> T:
        """Do `work` at the least loaded server; at another, or later, while servers do not answer.

        Raises:
            EmbedderError: nobody has answered for so long.
            ServerSaid: a server answered that this cannot be done (see `faults`); or a model's process died of it, and
                one died of it again that had answered in between.
        """
        crashes = 0
        while True:
            endpoint = self._acquire()
            try:
                result = work(endpoint)
            except Trouble as error:
                fault = fault_of(error)
                if fault in (Fault.REFUSED, Fault.MISFIT):
                    self._answered(endpoint)
                    raise
                self._failed(endpoint, error)
                if fault is Fault.CRASHED and not endpoint.crashed:
                    endpoint.crashed, crashes = True, crashes + 1
                    if crashes > 1:
                        raise
            else:
                self._answered(endpoint)
                return result
            finally:
                with self._lock:
                    endpoint.in_flight -= 1
                    self._wake()

    def close(self) -> None:
        """Give back all regions and connections. What a server still uses, or one that is away, keeps its regions."""
        for endpoint in self.endpoints:
            try:
                if endpoint.regions.drop():
                    endpoint.let_go()
            except Trouble as error:
                _logger.info("%s: %s keeps the registered shared memory: %s", self._name, endpoint.server, error)
            endpoint.transport.close()

    # -- whose turn it is ---------------------------------------------------------------------------------------------

    def _acquire(self) -> Endpoint:
        """Wait in line for the least loaded server that is well and has room."""
        ticket = self._waits.signal()
        with self._lock:
            self._queue.append(ticket)
        try:
            while True:
                ticket.clear()
                for endpoint in self._due(ticket):
                    self._probe(endpoint)
                with self._lock:
                    found = self._free() if self._queue[0] is ticket else None
                    if found is not None:
                        found.in_flight += 1
                        return found
                    until = self._next_probe()
                self._be_patient()
                ticket.wait(until)
        finally:
            with self._lock:
                self._queue.remove(ticket)
                self._wake()

    def _free(self) -> Endpoint | None:
        able = [e for e in self.endpoints if e.healthy and e.in_flight + e.late < e.capacity]
        return min(able, key=lambda e: e.in_flight, default=None)

    def _wake(self) -> None:
        if self._queue:
            self._queue[0].set()

    # -- servers that do not answer -----------------------------------------------------------------------------------

    def _answered(self, endpoint: Endpoint) -> None:
        endpoint.backoff, endpoint.crashed = _FIRST_BACKOFF, False
        self._trouble_since = self._trouble = None

    def _failed(self, endpoint: Endpoint, error: Exception) -> None:
        if self._trouble_since is None:
            self._trouble_since = time.monotonic()
        self._trouble = error
        self._take_out(endpoint, error)
        self._be_patient(flapping=True)

    def _take_out(self, endpoint: Endpoint, error: Exception) -> None:
        with self._lock:
            if not endpoint.healthy:
                return
            _logger.warning("%s: %s is not asked for now: %s", self._name, endpoint.server, _what(error))
            endpoint.healthy = False
            self._postpone(endpoint, time.monotonic())
            self._wake()
        if self._waits.beside:
            self._waits.start(partial(self._nurse, endpoint))

    def _nurse(self, endpoint: Endpoint) -> None:
        """Probe it until it is well. By itself: perhaps nobody asks for a server before it lets go of held slots."""
        while not endpoint.healthy:
            self._waits.pause(max(endpoint.probe_at - time.monotonic(), 0.0))
            endpoint.probing = True
            self._probe(endpoint)

    def _postpone(self, endpoint: Endpoint, now: float) -> None:
        # Jitter: many clients of a server that comes back must not ask in step.
        endpoint.probe_at = now + endpoint.backoff * random.uniform(0.5, 1.5)  # noqa: S311
        endpoint.backoff = min(2 * endpoint.backoff, _LAST_BACKOFF)

    def _due(self, ticket: Signal) -> list[Endpoint]:
        """Servers that this caller shall probe, where nobody does it beside him."""
        with self._lock:
            if self._waits.beside or self._queue[0] is not ticket:
                return []
            now = time.monotonic()
            due = [e for e in self.endpoints if not (e.healthy or e.probing) and e.probe_at <= now]
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
            well = endpoint.revive(self._check)
        except (*Trouble, PenstockError) as trouble:
            if isinstance(trouble, ConnectionRefusedError):
                endpoint.let_go()  # nobody listens there: the process that had our memory is gone
            error = trouble
        with self._lock:
            endpoint.probing, endpoint.healthy = False, well
            self._trouble = error
            if well:
                _logger.warning("%s: %s answers again", self._name, endpoint.server)
            else:
                self._postpone(endpoint, time.monotonic())
            self._wake()

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
        if now - since > _NEWS_SECONDS and now - self._told > _NEWS_SECONDS:
            self._told = now
            _logger.warning(
                "%s: no answer from %s for %.0f s (%s); trying on", self._name, urls, now - since, _what(self._trouble)
            )


def _what(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
