"""Clips to measure with: photographs under a moving camera, with cuts and noise, made once per folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from .pictures import UInt8, photographs

if TYPE_CHECKING:
    from av.video.stream import VideoStream

WIDTH, HEIGHT, FPS = 1280, 720, 30
_SHOT = 4 * FPS
"""Frames from cut to cut."""

_NOISE = 3.0
"""Grey levels."""


def make_clip(folder: Path, seconds: int, keyframe_s: int, codec: str = "libx264") -> Path:
    """A clip of 720p30 with 1 Mbit/s and B-frames, or what an earlier call has left there.

    Args:
        folder: Where.
        seconds: How long.
        keyframe_s: Seconds between keyframes; there are none at cuts.
        codec: Encoder's name.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """
    import av
    from av.video.frame import VideoFrame

    path = folder / f"{codec}-{seconds}s-key{keyframe_s}s.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.mp4")
    options = {"preset": "veryfast", "sc_threshold": "0"} if codec == "libx264" else {}
    with av.open(str(part), "w") as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=FPS, options=options))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 1_000_000
        stream.codec_context.gop_size = keyframe_s * FPS
        for n in range(seconds * FPS):
            container.mux(stream.encode(VideoFrame.from_ndarray(_frame(n), "rgb24")))
        container.mux(stream.encode(None))
    part.replace(path)
    return path


def _frame(n: int) -> UInt8:
    photos = photographs()
    shot, at = divmod(n, _SHOT)
    photo = photos[shot % len(photos)]
    rng = np.random.default_rng((n, 2026))
    width = photo.width * (0.7 + 0.1 * at / _SHOT)
    height = min(width * HEIGHT / WIDTH, photo.height)
    left, top = (
        (side - part) * (0.1 + 0.8 * at / _SHOT) for side, part in ((photo.width, width), (photo.height, height))
    )
    shake = rng.normal(0, 0.4, 2)
    left, top = max(0.0, left + shake[0]), max(0.0, top + shake[1])
    box = (left, top, min(left + width, photo.width), min(top + height, photo.height))
    view = np.asarray(photo.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box))
    noise = rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8).astype(np.float32) / 128 - 1
    return (view + noise * _NOISE).clip(0, 255).astype(np.uint8)
