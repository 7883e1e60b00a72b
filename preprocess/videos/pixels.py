"""From a decoded frame to pixels of sRGB: upright, square, of the wanted size."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .hdr import is_hdr, to_srgb
from .orientation import orientation_of

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

UInt8 = npt.NDArray[np.uint8]

_UNTAGGED: Final = 2
"""Of colour spaces and primaries, by H.273."""

_BT709_PRIMARIES: Final = 1
_HD: Final = 720
"""Lines from which untagged material is of BT.709, as broadcasters and cameras have it; below it is of BT.601."""

_NARROWEST: Final = Fraction(1, 4)
"""Of pixels; beyond it and its inverse a header is not believed."""


def square_pixels(aspect: Fraction | None) -> Fraction:
    """The aspect ratio of pixels, where a header says one that can be."""
    return aspect if aspect and _NARROWEST <= aspect <= 1 / _NARROWEST else Fraction(1)


def coded_size(frame: VideoFrame, aspect: Fraction, short_side: int | None = None) -> tuple[int, int]:
    """Width and height of a frame before it is turned, with square pixels: no line of it is lost unless it is scaled.

    Args:
        frame: As it was decoded.
        aspect: Width of its pixels to their height.
        short_side: Scale it down to it; None, or larger than it is: keep its size.
    """
    wide, high = frame.width * max(aspect, Fraction(1)), frame.height / min(aspect, Fraction(1))
    share = min(Fraction(1), short_side / min(wide, high)) if short_side else Fraction(1)
    return max(1, round(wide * share)), max(1, round(high * share))


def to_rgb(frame: VideoFrame, aspect: Fraction, short_side: int | None = None) -> UInt8:
    """A frame's pixels.

    Args:
        frame: As it was decoded.
        aspect: Width of its pixels to their height.
        short_side: Scale it down to it, by the mean of what each new pixel covers; None: full size.

    Returns:
        uint8 ``[height, width, 3]``, sRGB, upright, C-contiguous, its own memory.
    """
    width, height = coded_size(frame, aspect, short_side)
    colours = _colorspace(frame)  # of all its lines: a field has half of them
    if frame.interlaced_frame:
        frame = _one_field(frame)
    if is_hdr(frame):
        is_bt2020 = frame.color_primaries != _BT709_PRIMARIES
        rgb = to_srgb(_scaled(frame, width, height, "rgb48le", colours), frame.color_trc, is_bt2020=is_bt2020)
    else:
        rgb = _scaled(frame, width, height, "rgb24", colours)
    return np.array(orientation_of(frame).upright(rgb), np.uint8, order="C")


def _scaled(frame: VideoFrame, width: int, height: int, name: str, colours: int | None) -> npt.NDArray[Any]:
    from av.video.reformatter import Interpolation

    made = frame.reformat(width, height, name, src_colorspace=colours, interpolation=Interpolation.AREA, threads=1)
    return made.to_ndarray()


def _colorspace(frame: VideoFrame) -> int | None:
    """What an untagged frame is taken for; None: as it is tagged."""
    from av.video.reformatter import Colorspace

    if frame.colorspace != _UNTAGGED or frame.format.is_rgb:
        return None
    if is_hdr(frame):
        return Colorspace.BT2020
    return Colorspace.ITU709 if frame.height >= _HD else None


def _one_field(frame: VideoFrame) -> VideoFrame:
    """The upper field of an interlaced frame, of half its lines: the two are of two moments, and show a comb in what
    moves."""
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    graph.link_nodes(source, graph.add("field", "type=top"), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()
