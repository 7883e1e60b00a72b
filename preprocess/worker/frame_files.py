"""Frames of a video that are kept as JPEG files: a folder that is complete by its rename, with a manifest.

::

    frames/00000012.jpg      by the number of the frame among those taken
    frames/manifest.jsonl    a line for each: file, pts_us, is_keyframe, width, height, bytes,
                             its statistics, and its PDQ hash
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...durable import DISK, TEMPORARY, replace_file, shut, sync_path
from ..pdq import squash64
from ..signature import tail_of
from ..videos import SampledFrame
from ..videos.statistics import STATISTICS

MANIFEST: Final = "manifest.jsonl"

_SHORT_SIDE: Final = 480
_QUALITY: Final = 90


class FrameFiles:
    """Writes the frames of one video; nobody sees them before `complete`.

    Args:
        folder: what it will be called.

    Raises:
        OSError: the disk refuses; as all methods.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._unfinished = self._folder.with_name(f"{self._folder.name}.{uuid4().hex}{TEMPORARY}")
        self._unfinished.mkdir(mode=0o700)
        self._lines: list[str] = []

    def add(self, frame: SampledFrame, statistics: NDArray[np.float32], picture: NDArray[np.uint8]) -> None:
        """Write a frame, its short side 480 pixels at most.

        Args:
            frame: of the video.
            statistics: its numbers.
            picture: uint8 ``[h, w, 3]``, what is hashed: the frame without bars.
        """
        image = Image.fromarray(frame.rgb(_SHORT_SIDE))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=_QUALITY)
        name = f"{frame.index:08}.jpg"
        (self._unfinished / name).write_bytes(data.getvalue())
        said = {"file": name, "pts_us": frame.pts_us, "is_keyframe": frame.is_keyframe}
        sizes = {"width": image.width, "height": image.height, "bytes": data.tell()}
        numbers = dict(zip(STATISTICS, map(float, statistics), strict=True))
        tail = tail_of(squash64(picture)[None])
        hashes = {"pdq": tail.pdq[0].tobytes().hex(), "quality": int(tail.quality[0])}
        hashes["digest"] = tail.digest[0].tobytes().hex()
        self._lines.append(json.dumps({**said, **sizes, **numbers, **hashes}) + "\n")

    def complete(self) -> None:
        """There are no more: the folder gets its name, in place of what an earlier attempt has left."""
        shut(DISK, replace_file(str(self._unfinished / MANIFEST), [line.encode() for line in self._lines]))
        sync_path(self._unfinished)
        if self._folder.exists():
            old = self._folder.with_name(f"{self._folder.name}.{uuid4().hex}{TEMPORARY}")
            self._folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)
        self._unfinished.rename(self._folder)
        sync_path(self._folder.parent)

    def abandon(self) -> None:
        """They are not wanted."""
        shutil.rmtree(self._unfinished, ignore_errors=True)
