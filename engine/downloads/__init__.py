"""Videos onto the disk: downloads, and the folders they lie in. See the README beside this file."""

from __future__ import annotations

from .disk_budget import DiskBudget
from .workspace import VideoFolder, Workspace, video_id

__all__ = ["DiskBudget", "VideoFolder", "Workspace", "video_id"]
