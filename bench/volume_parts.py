"""Parts of a volume worker that look at nothing: what is measured or tested is the way of pages between them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..engine.jobs.volumes import DecodedFrame, ImageTask, PageLook, Record
from ..preprocess.pages.patches import PATCH


class Undecoded:
    """A decoder of pages that are one row of patches and take no memory; no file is looked at.

    Args:
        frame: how wide the page of a task is, in pixels, and how often it has been straightened.
    """

    def __init__(self, frame: Callable[[ImageTask], tuple[int, int]]) -> None:
        self._frame = frame

    def decode(self, task: ImageTask, data: bytes) -> DecodedFrame:
        """See `Decoder`."""
        del data
        width, passes = self._frame(task)
        return DecodedFrame(task, np.broadcast_to(np.uint8(9), (PATCH, width)), passes)


class Around:
    """A controller that sends pages round, as if it had straightened them.

    Args:
        times: how often the page of a task goes round.
    """

    def __init__(self, times: Callable[[ImageTask], int]) -> None:
        self._times = times

    def inspect(self, page: PageLook) -> DecodedFrame | Record:
        """See `TransformController`."""
        frame, task = page.frame, page.frame.task
        if frame.passes < self._times(task):
            return DecodedFrame(task, frame.pixels, frame.passes + 1)
        return Record(
            *(task.key, task.volume_id, task.page, None, None, frame.width, frame.height),
            passes=frame.passes,
            patches=len(page.features),
            vector=page.vector,
        )
