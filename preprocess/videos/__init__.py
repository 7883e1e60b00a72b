"""Videos: what is in a file, and frames of it, each at its exact time and upright. See README.md here.

PyAV (the extra ``penstock[videos]``) is imported when the first video is opened.
"""

from __future__ import annotations

from .at_times import frames_at
from .description import Scene, VideoFindings, VideoInfo, VideoLimits
from .frames import SampledFrame
from .opening import open_video
from .sampling import Sampling, sample
from .video import OnPacket, Video

__all__ = [
    "OnPacket",
    "SampledFrame",
    "Sampling",
    "Scene",
    "Video",
    "VideoFindings",
    "VideoInfo",
    "VideoLimits",
    "frames_at",
    "open_video",
    "sample",
]
