"""What workers and their fork server take of memory at most, besides the rings and what an embedder takes.

The constants are measured, with a quarter on top: ``python -m penstock.bench soak`` says what the processes take, and
``tests/test_decode_memory.py`` holds the bytes a pixel against every format that is decoded.
"""

from __future__ import annotations

import math
from typing import Final

from ..kernel.geometry import canvas_side, scale_limit
from ..limits import BAND_PIXELS
from ..spec import PreprocessSpec
from .reader import AHEAD_BYTES

FORK_SERVER_BYTES: Final = 170 * 2**20
"""The process that all workers are forked from: an interpreter with JAX, no backend (measured: 131-145 MiB)."""

_WORKER_BYTES: Final = 130 * 2**20
"""A worker's own pages with its kernels compiled, before its first picture (measured: 73-100 MiB)."""

_PIXEL_BYTES: Final = 18
"""Bytes for each pixel of the picture that is being decoded (measured: 16.5 for WebP, 8 for progressive JPEG in four
colours, 4 to 6 for the rest)."""

_BAND_PIXEL_BYTES: Final = 36
"""What some modes take on the way."""


_DECODER_BYTES: Final = 104 * 2**20
"""FFmpeg with an open decoder (measured: 39 MB), and the packets between two keyframes (64 MB at most)."""

_FRAME_PIXEL_BYTES: Final = 36
"""Bytes for each pixel of a frame: a decoder keeps up to 20 frames of 12 bits a pixel, and one is turned into RGB."""


def worker_bytes(spec: PreprocessSpec, rows: int, threads: int | None) -> int:
    """Bytes one worker takes at most, when the largest picture that is allowed comes.

    Args:
        spec: its limits (``max_pixels``, ``max_file_bytes``) are most of the figure.
        rows: pictures in a batch.
        threads: reads ahead; none if 0, None if that is not said.
    """
    ahead = 0 if threads == 0 else AHEAD_BYTES
    return _WORKER_BYTES + _kernel_bytes(spec, rows) + decode_bytes(spec) + spec.max_file_bytes + ahead


def video_worker_bytes(spec: PreprocessSpec, rows: int, max_pixels: int) -> int:
    """Bytes one worker of videos takes at most.

    Args:
        spec: of frames.
        rows: frames in a batch.
        max_pixels: of a frame of a video.
    """
    return _WORKER_BYTES + _kernel_bytes(spec, rows) + _DECODER_BYTES + _FRAME_PIXEL_BYTES * max_pixels


def row_bytes(spec: PreprocessSpec) -> int:
    """Bytes of one picture's pixels in a batch."""
    return math.prod(spec.pixel_shape()) * spec.pixel_dtype().itemsize


def decode_bytes(spec: PreprocessSpec) -> int:
    """Bytes that decoding the largest picture takes at most, without its file.

    A picture that is not reduced, because one side is short, is held twice more as packed pixels.
    """
    short = math.ceil((spec.resize or spec.size) * scale_limit(spec.size))
    packed = min(spec.max_pixels, short * (spec.max_side if spec.resize else short))
    return _PIXEL_BYTES * spec.max_pixels + 2 * 4 * packed + _BAND_PIXEL_BYTES * BAND_PIXELS


def _kernel_bytes(spec: PreprocessSpec, rows: int) -> int:
    """The canvas, the result, and the widest thing on the way: windows of 16 rows for each block of 4."""
    side = canvas_side(spec)
    return rows * (4 * side * side + row_bytes(spec)) + 4 * 16 * 3 * side * -(-spec.size // 4)
