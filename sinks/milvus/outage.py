"""An outage of a store, as people are told of it: a line when it has lasted a second, and a line when it is over."""

from __future__ import annotations

import logging
import threading
import time

logger = logging.getLogger(__name__)

_WARN_AFTER = 1.0
"""Seconds: a shorter one is a hiccup that nobody needs to hear of."""


class Outage:
    """Whether a server answers, as all threads that call it find out together. Thread-safe.

    Args:
        where: its address, without secrets.
        limit: seconds after which a call is given up.
    """

    def __init__(self, where: str, limit: float) -> None:
        self._where, self._limit = where, limit
        self._mutex = threading.Lock()
        self._since: float | None = None
        self._warned = False

    @property
    def seconds(self) -> float:
        """How long it has lasted; 0 while the server answers."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def failed(self, words: str) -> None:
        """A call got no answer, and is tried again."""
        with self._mutex:
            if self._since is None:
                self._since = time.monotonic()
            if self._warned or self.seconds < _WARN_AFTER:
                return
            self._warned = True
        logger.warning(
            "waiting for Milvus at %s (%s), for %g s at most (--retry-for says how long)",
            self._where,
            words,
            self._limit,
        )

    def answered(self) -> None:
        """A call got an answer: it is over, if it was one."""
        if self._since is None:
            return
        with self._mutex:
            seconds, warned = self.seconds, self._warned
            self._since, self._warned = None, False
        if warned:
            logger.warning("Milvus at %s answers again, after %.0f s", self._where, seconds)
