"""`Downloader`: videos onto the disk, several at once, each in a process that can be killed."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from ...backoff import Backoff
from ...errors import DeadlineError, ItemError
from ...messages import redact
from ..workers import WorkerPool
from .hosts import HostReport, Hosts
from .http_file import too_late
from .settings import Downloaded, DownloadSettings
from .worker import DownloadRequest, download
from .workspace import VideoFolder, Workspace

_GRACE: Final = 5.0
"""Seconds over its deadline after which a download is killed: those that can tell the time end by themselves."""

_AGAIN: Final = Backoff(2.0, 60.0, 0.5)
"""Between attempts while the disk refuses, though it says that there is room."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A download under way.

    Attributes:
        url: without secrets.
        nbytes: that are on the disk.
        seconds: since it was begun.
    """

    url: str
    nbytes: int
    seconds: float


class Downloader:
    """Downloads videos into a workspace. Threads may share it; each download is a call that waits.

    More threads than `DownloadSettings.workers` are of use: those whose host is busy wait, and others go on.

    Args:
        workspace: where to.
        settings: how.
    """

    def __init__(self, workspace: Workspace, settings: DownloadSettings | None = None) -> None:
        self.workspace = workspace
        self.settings = settings or DownloadSettings()
        self._hosts = Hosts(self.settings.per_host, self.settings.refusals)
        self._pool = WorkerPool(
            self.settings.workers,
            preload=[DownloadRequest.__module__],
            env={"YTDLP_NO_PLUGINS": "1", "OPENBLAS_NUM_THREADS": "1"},  # else NumPy starts a thread, before the forks
            item_timeout=self.settings.deadline + min(_GRACE, self.settings.deadline),
        )
        self._active: dict[str, tuple[str, float]] = {}
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def download(self, url: str, folder: VideoFolder | None = None) -> Downloaded:
        """Have a video on the disk. One that is there already is taken as it is; a beginning is gone on with.

        Waits for its host, for room on the disk, and while the disk is full. Its bytes count in the workspace's budget
        until the folder is cleared, or somebody tells the budget otherwise.

        Args:
            url: of a file (``http://``, ``https://``), of an object (``s3://``...), or of a page.
            folder: of the video; None: that of the URL.

        Raises:
            DownloadError: it cannot be had; its `errno` says whether it may another time.
            HostStoppedError: its host is not asked any more in this run; it stays undone.
            ItemError: it is no video, too large, or took too long.
            ConfigError: what it takes is not installed.
            WorkerError: the downloads have been ended.
        """
        folder = folder or self.workspace.folder(url)
        found = Downloaded.load(folder.path)
        if found is None:
            with self._hosts.turn(url), self._alone(url, folder):
                found = Downloaded.load(folder.path) or self._fetch(url, folder)
        self.workspace.budget.settle(folder.id, folder.size())
        return found

    def transfers(self) -> list[Transfer]:
        """The downloads that are under way; from any thread."""
        with self._changed:
            active, now = list(self._active.items()), time.monotonic()
        return [Transfer(url, VideoFolder(self.workspace, name).size(), now - since) for name, (url, since) in active]

    def hosts(self) -> list[HostReport]:
        """What came of each host so far."""
        return self._hosts.reports()

    def close(self) -> None:
        """End all downloads, and the workspace's budget: whoever waits is told. What has come stays for a later run."""
        self._hosts.close()
        self.workspace.budget.close()
        self._pool.kill_workers()
        self._pool.shutdown()

    @contextmanager
    def _alone(self, url: str, folder: VideoFolder) -> Generator[None]:
        """Nobody else works in the folder within the block: the same video may be named twice."""
        with self._changed:
            self._changed.wait_for(lambda: folder.id not in self._active)
            self._active[folder.id] = (redact(url), time.monotonic())
        try:
            yield
        finally:
            with self._changed:
                del self._active[folder.id]
                self._changed.notify_all()

    def _fetch(self, url: str, folder: VideoFolder) -> Downloaded:
        """Download it; a disk that is full is waited for, and then it goes on."""
        refused = 0
        while True:
            self.workspace.budget.enter(folder.id, folder.size)
            began = time.monotonic()
            try:
                found = self._result(url, folder)
            except OSError as error:
                self.workspace.budget.leave(folder.id)
                if isinstance(error, ItemError) or error.errno not in _FULL:
                    self._hosts.failed(url, error)
                    raise
                self.workspace.budget.wait_for_space(_AGAIN.delay(refused) if refused else 0.0)
                refused += 1
            except Exception as error:
                self.workspace.budget.leave(folder.id)
                self._hosts.failed(url, error)
                raise
            else:
                self._hosts.went_well(url, found.size, time.monotonic() - began)
                return found

    def _result(self, url: str, folder: VideoFolder) -> Downloaded:
        folder.make()
        try:
            return self._pool.submit(download, DownloadRequest(url, str(folder.path), self.settings)).result()
        except DeadlineError:  # the pool knows of no downloads
            raise too_late(url, self.settings) from None
        finally:
            with suppress(OSError):  # no error of clearing up takes the place of a failure
                folder.sweep()
