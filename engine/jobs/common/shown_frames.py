"""Small pictures of frames, read again from their videos, for pages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping

from PIL import Image

from ....errors import DeadlineError
from ....preprocess.videos import VideoLimits, frames_at, open_video
from ...observe.contact_sheet import Frame
from ...observe.thumbnails import THUMBNAIL, data_uri, thumbnail
from ...sources import path_of


def show_frames(frames: Iterable[Frame], seconds: float) -> Mapping[Frame, str | Exception]:
    """A data: URI for each frame, or why there is none.

    Args:
        frames: of any videos, in any order.
        seconds: for all of them together.
    """
    deadline = time.monotonic() + seconds
    videos: defaultdict[str, list[int]] = defaultdict(list)
    for path, pts_us in frames:
        videos[path].append(pts_us)
    found: dict[Frame, str | Exception] = {}

    def in_time(_: object = None) -> None:
        if time.monotonic() > deadline:
            raise DeadlineError(f"its turn did not come within {seconds:g} s")

    for path, times in videos.items():
        error: Exception = DeadlineError("there is no frame at this time")
        try:
            in_time()
            with open_video(path_of(path), VideoLimits()) as video:
                video.on_packet = in_time
                for pts_us, frame in frames_at(video, times):
                    image = Image.fromarray(frame.rgb(THUMBNAIL))
                    found[path, pts_us] = data_uri(thumbnail(image))
        except Exception as caught:  # noqa: BLE001  (one bad file must not cost the page)
            error = caught
        for pts_us in times:
            found.setdefault((path, pts_us), error)
    return found
