"""Pictures as packed pixels: one uint32 of red, green, blue and a byte that means nothing, lowest byte first.

That is how Pillow keeps an RGB picture, so it can be looked at where it lies: 23 us for 500 x 375 to the canvas, where
``np.asarray(image)`` and a copy take 130. In the kernel a shift and a mask take out a channel of many pixels at once,
where bytes at a distance of three need a gather.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]

assert sys.byteorder == "little", "packed pixels are written for little-endian machines"

_GREY: Final = np.uint32(0x010101)


class _ArrowArray(ctypes.Structure):
    """The Arrow C data interface's array, https://arrow.apache.org/docs/format/CDataInterface.html."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def pack(image: Image.Image) -> UInt32:
    """A loaded picture of mode L or RGB as packed pixels.

    Returns:
        uint32 ``[h, w]``, to be read only. Where Pillow lets us it is a view of the picture's own memory, which it
        keeps alive.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    try:
        return _view(rgb)
    except (AttributeError, ValueError):  # an older Pillow; a picture of several blocks of 16 MiB
        pixels: UInt8 = np.asarray(rgb.convert("RGBX"))
        return pixels.view(np.uint32)[:, :, 0]


def _view(image: Image.Image) -> UInt32:
    _, capsule = image.__arrow_c_array__()
    array = _ArrowArray.from_address(_pointer_of(capsule, b"arrow_array"))
    pixels = array.children[0].contents
    count = image.width * image.height
    if array.length != count or pixels.length != 4 * count or array.offset or pixels.offset:
        raise ValueError("not the memory layout we know")
    memory: Any = (ctypes.c_uint32 * count).from_address(pixels.buffers[1])
    memory.owner = capsule  # what numpy keeps alive must keep the picture's memory alive
    return np.frombuffer(memory, np.uint32).reshape(image.height, image.width)


def pack_array(pixels: UInt8) -> UInt32:
    """uint8 ``[h, w]``, ``[h, w, 3]`` or ``[h, w, 4]`` as packed pixels uint32 ``[h, w]``; a view where it can be."""
    if pixels.ndim == 2:
        return pixels.astype(np.uint32) * _GREY
    if pixels.shape[2] == 4:
        return np.ascontiguousarray(pixels).view(np.uint32)[:, :, 0]
    return pack(Image.fromarray(np.ascontiguousarray(pixels)))


def unpack(pixels: UInt32) -> Image.Image:
    """Packed pixels as a Pillow picture of mode RGBX over the same memory; `pixels` must be contiguous."""
    height, width = pixels.shape
    return Image.frombuffer("RGBX", (width, height), pixels, "raw", "RGBX", 0, 1)
