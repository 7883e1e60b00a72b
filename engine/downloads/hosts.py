"""How hosts are asked: so many downloads at once, not before they said, and not at all once they refuse."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ...errors import DownloadError, HostStoppedError, WorkerError

_LONGEST_PAUSE: Final = 600.0
"""Seconds that a host may ask for; one that asks for more is left alone."""


@dataclass(slots=True)
class HostReport:
    """What came of one host so far.

    Attributes:
        host: its name.
        downloads: that went well; `failures`: that did not.
        nbytes: of those that went well; `seconds`: that they took, one after the other.
        refusals: answers in a row by which it said that it does not want to be asked.
        is_stopped: whether it is not asked any more; `why`: in words.
    """

    host: str
    downloads: int = 0
    failures: int = 0
    nbytes: int = 0
    seconds: float = 0.0
    refusals: int = 0
    is_stopped: bool = False
    why: str = ""

    @property
    def rate(self) -> float:
        """Bytes a second of a download."""
        return self.nbytes / self.seconds if self.seconds else 0.0


def host_of(url: str) -> str:
    """Whom a URL is asked of: a host, or a bucket."""
    try:
        return (urlsplit(url).hostname or urlsplit(url).netloc).lower()
    except ValueError:
        return ""


class _Host:
    """One host.

    Attributes:
        report: what came of it.
        active: downloads from it at the moment.
        opens_at: before this time (`monotonic`) it is not asked.
    """

    def __init__(self, name: str) -> None:
        self.report = HostReport(name)
        self.active = 0
        self.opens_at = 0.0


class Hosts:
    """All hosts of a run. Threads may share it.

    Args:
        at_once: downloads from one host.
        refusals: answers in a row by which a host is given up for the rest of the run.
    """

    def __init__(self, at_once: int, refusals: int) -> None:
        self._at_once = at_once
        self._refusals = refusals
        self._hosts: dict[str, _Host] = {}
        self._closed = False
        self._changed = threading.Condition()

    def reports(self) -> list[HostReport]:
        """What came of each, the one with most bytes first."""
        with self._changed:
            return sorted((host.report for host in self._hosts.values()), key=lambda report: -report.nbytes)

    @contextmanager
    def turn(self, url: str) -> Generator[None]:
        """Wait until the host of a URL may be asked, and hold a place there within the block.

        Raises:
            HostStoppedError: it is not asked any more.
            WorkerError: all is being ended.
        """
        name = host_of(url)
        with self._changed:
            host = self._hosts.setdefault(name, _Host(name))
            while not self._may_ask(host):
                wait = host.opens_at - time.monotonic()
                self._changed.wait(wait if wait > 0 else None)
            host.active += 1
        try:
            yield
        finally:
            with self._changed:
                host.active -= 1
                self._changed.notify_all()

    def went_well(self, url: str, nbytes: int, seconds: float) -> None:
        """A download of so many bytes is there."""
        with self._changed:
            report = self._hosts[host_of(url)].report
            report.downloads += 1
            report.nbytes += nbytes
            report.seconds += seconds
            report.refusals = 0

    def failed(self, url: str, error: Exception) -> None:
        """A download failed. When the host is to be asked again is seen to here: the error says it no more.

        Raises:
            HostStoppedError: with this failure the host is given up; its items are left undone from here on.
        """
        with self._changed:
            host = self._hosts[host_of(url)]
            report = host.report
            report.failures += 1
            if isinstance(error, DownloadError):
                report.refusals = report.refusals + 1 if error.is_refusal else 0
                host.opens_at = max(host.opens_at, time.monotonic() + (error.retry_after or 0.0))
                error.retry_after = None  # whoever tries it again waits here, and need not elsewhere
            if report.refusals >= self._refusals:
                report.why = f"refused {report.refusals} downloads in a row"
            elif host.opens_at > time.monotonic() + _LONGEST_PAUSE:
                report.why = "asked not to be asked again so soon"
            if report.why:
                report.is_stopped = True
                self._changed.notify_all()
                raise _stopped(report) from error

    def close(self) -> None:
        """Whoever waits is refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _may_ask(self, host: _Host) -> bool:
        if self._closed:
            raise WorkerError("the downloads have been ended")
        if host.report.is_stopped:
            raise _stopped(host.report)
        return host.active < self._at_once and time.monotonic() >= host.opens_at


def _stopped(report: HostReport) -> HostStoppedError:
    return HostStoppedError(
        f"{report.host} {report.why} and is left alone for the rest of this run; its videos stay undone: go on later, "
        "with fewer downloads at once, or with --cookies"
    )
