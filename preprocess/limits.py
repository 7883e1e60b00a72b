"""Limits of one picture: what is over them is refused where it lies, before anything copies it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..errors import TooLargeError
from .spec import PreprocessSpec

BAND_PIXELS: Final = 2**20
"""How much of a large picture is flattened at once."""


def over_limit(source: object, spec: PreprocessSpec) -> TooLargeError | None:
    """Why bytes or an array are too large; None where they are not. Files are looked at when they are read."""
    if isinstance(source, np.ndarray):
        array: np.ndarray[Any, np.dtype[Any]] = source
        samples = array.shape[2] if array.ndim == 3 and array.shape[2] in (3, 4) else 1
        if array.size // samples > spec.max_pixels:
            return TooLargeError(
                f"array of shape {array.shape}: {array.size // samples} pixels are over max_pixels={spec.max_pixels}"
            )
    elif isinstance(source, (bytes, bytearray, memoryview)):
        nbytes = memoryview(source).nbytes
        if nbytes > spec.max_file_bytes:
            return TooLargeError(f"a file of {nbytes} bytes; max_file_bytes allows {spec.max_file_bytes}")
    return None
