"""Frames of a video into a folder, in a process of its own: what `ExtractWorker` calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....preprocess.videos import Sampling, VideoLimits, open_video, sample
from ....preprocess.worker.frame_files import FrameFiles
from ....preprocess.worker.frame_look import FrameLook
from ....preprocess.worker.video_protocol import LeftOut


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """What is to be extracted.

    Attributes:
        path: of the video.
        folder: that the frames go to.
        every: which frames are taken.
        limits: of the video, fields of ``VideoLimits``.
    """

    path: str
    folder: str
    every: str
    limits: dict[str, Any]


def extract_frames(request: ExtractRequest) -> int:
    """Write all frames that are taken, with their statistics; returns how many.

    Raises:
        ItemError: the video cannot be read.
        OSError: the disk refuses.
    """
    from ....preprocess.worker.jax_runtime import on_cpu

    frames = 0
    files: FrameFiles | None = None
    try:
        with on_cpu(), open_video(request.path, VideoLimits(**request.limits)) as video:
            files, look = FrameFiles(request.folder), FrameLook((), neighbours=False)
            for frame in sample(video, Sampling.parse(request.every)):
                picture = look.at(frame.pts_us, frame.rgb(256))
                assert not isinstance(picture, LeftOut)  # nothing is asked for
                files.add(frame, look.statistics, picture)
                frames += 1
            files.complete()
            files = None
    finally:
        if files is not None:
            files.abandon()
    return frames
