"""Videos onto the disk: downloads, and the folders they lie in. See the README beside this file."""

from __future__ import annotations

from .disk_budget import DiskBudget
from .downloader import Downloader, Transfer
from .hosts import HostReport
from .settings import Downloaded, DownloadSettings
from .workspace import VideoFolder, Workspace, video_id

__all__ = [
    "DiskBudget",
    "DownloadSettings",
    "Downloaded",
    "Downloader",
    "HostReport",
    "Transfer",
    "VideoFolder",
    "Workspace",
    "video_id",
]
