"""Where the videos of a job lie while they are needed: downloads before they are decoded, clean-up afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ....object_stores import StoreOptions
from ...config.videos import VideoConfig
from ...core.threads import DaemonThreads
from ...downloads import Downloader, DownloadSettings, VideoFolder, Workspace, video_id
from ..common.output_paths import beside_rows
from .values import Video

FRAMES: Final = "frames"
"""Folder of the frames of a video that are kept."""

_ENDING: Final = 0.5
"""Seconds that threads get to end after a job that was stopped: their downloads have been ended by then."""


class VideoFiles:
    """Files of the videos of a job, below its working folder. Threads may share it; to be closed.

    A video behind a URL is downloaded when its turn comes, and its file goes when all that was made of it is recorded.
    Files of the user's are read where they are.

    Args:
        config: of the job.
        owner: the job's id, or what stands for it.
    """

    def __init__(self, config: VideoConfig, owner: str) -> None:
        self._config, self._owner = config, owner
        self._lock = threading.Lock()
        self._workspace: Workspace | None = None
        self._downloader: Downloader | None = None
        self._spent: list[Video] = []
        self.threads = DaemonThreads(self.at_once, "penstock-download")

    @property
    def at_once(self) -> int:
        """Videos that may be asked for at once: some wait for their hosts, others go on."""
        return 2 * self._config.downloads

    @property
    def keeps_frames(self) -> bool:
        """Whether frames that are kept become JPEG files, too."""
        return self._config.keep != "none"

    @property
    def place(self) -> Path:
        """The working folder."""
        return self._space().path

    def frames_folder(self, key: str) -> str:
        """Where the frames of a video go, by its key. The folder that it is in is there."""
        folder = self._space().folder(key)
        folder.make()
        return str(folder.path / FRAMES)

    def fetch(self, video: Video) -> Video:
        """Have a video on this machine; one that lies on it already is as it is.

        Raises:
            ItemError: it cannot be had.
            WorkerError: the downloads have been ended.
        """
        if video.source is not None:
            found = self._started().download(video.source, self._folder(video))
            video.path = str(found.path)
            video.url, video.title = found.url, found.title or None
            video.page_duration_s = found.duration_s
        if self.keeps_frames:
            video.frames_folder = self.frames_folder(video.key)
        return video

    def drop_done(self, undone: Iterable[str]) -> None:
        """Delete what a run that was killed has left of videos that it had recorded.

        Args:
            undone: keys of the videos that are still to be done.
        """
        path = self._config.work or beside_rows(self._config, "work")
        if self._config.keep != "none" or not path.is_dir():
            return
        needed = {*map(video_id, undone)}
        for folder in list(self._space().folders()):
            if folder.id not in needed:
                with suppress(OSError):
                    folder.clear()

    def spent(self, video: Video) -> None:
        """All that comes of a video is recorded, or will be at the next `tidy`: its file is not needed any more."""
        if video.source is not None or video.frames_folder is not None:
            with self._lock:
                self._spent.append(video)

    def tidy(self) -> None:
        """Delete what is not needed, behind the records that vouch for it."""
        with self._lock:
            spent, self._spent = self._spent, []
        for video in spent:
            folder = self._folder(video)
            with suppress(OSError):  # it is garbage, and swept by a later run
                self._let_go(folder, video)

    @property
    def figures(self) -> Mapping[str, Any]:
        """For progress and reports: bytes on the disk, and what came of each host."""
        workspace, downloader = self._workspace, self._downloader
        if workspace is None:
            return {}
        hosts = [asdict(host) | {"rate": host.rate} for host in downloader.hosts()] if downloader else []
        transfers = [asdict(transfer) for transfer in downloader.transfers()] if downloader else []
        return {
            "disk": workspace.budget.used,
            "disk_limit": workspace.budget.limit,
            "hosts": hosts,
            "downloads": transfers,
        }

    def close(self) -> None:
        """End downloads; whoever waits for one is told. May be called twice."""
        if self._downloader is not None:
            self._downloader.close()
        self.threads.shutdown(wait=False)
        self.threads.join(_ENDING)
        if self._workspace is not None:
            with suppress(OSError):
                self._workspace.sweep()
            self._workspace.close()

    def _let_go(self, folder: VideoFolder, video: Video) -> None:
        folder.sweep()
        keep = self._config.keep
        if keep == "none" or (keep == "frames" and not Path(folder.path / FRAMES).is_dir()):
            folder.clear()
            return
        if keep == "frames" and video.source is not None:
            folder.remove(Path(video.path).name)
        folder.workspace.budget.leave(folder.id)  # what stays there is the user's

    def _folder(self, video: Video) -> VideoFolder:
        return self._space().folder(video.key)

    def _space(self) -> Workspace:
        with self._lock:
            if self._workspace is None:
                path = self._config.work or beside_rows(self._config, "work")
                self._workspace = Workspace(path, self._owner, self._config.max_disk)
                self._workspace.sweep()
            return self._workspace

    def _started(self) -> Downloader:
        workspace = self._space()
        with self._lock:
            if self._downloader is None:
                self._downloader = Downloader(workspace, download_settings(self._config))
            return self._downloader


def download_settings(config: VideoConfig) -> DownloadSettings:
    """How videos are downloaded.

    Raises:
        ConfigError: a setting makes no sense.
    """
    given: dict[str, Any] = {} if config.max_file_bytes is None else {"max_bytes": config.max_file_bytes}
    return DownloadSettings(
        way=config.downloader,
        deadline=config.download_timeout,
        workers=config.downloads,
        per_host=config.per_host,
        allowed=tuple(config.allow_hosts),
        max_duration=config.max_duration,
        cookies=None if config.cookies is None else str(config.cookies),
        politeness=config.politeness,
        stores=StoreOptions(config.anonymous, config.instance_role),
        **given,
    )
