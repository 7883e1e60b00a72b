"""Seven numbers of a frame, by which filters decide: one JAX kernel, any device.

They are stored with the frame, so that other thresholds need no second decoding (`filters`). All are of the luma
(Rec. 601, 0..255) of the whole frame squashed to 224 x 224: sizes and shapes of videos make no difference.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import ConfigError

if TYPE_CHECKING:
    import jax

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SIDE: Final = 224
"""Side of the square that is looked at, in pixels."""

_BINS: Final = 32
_FLAT_STEP: Final = 2  # grey levels to the next pixel: below it nothing changes,
_EDGE_STEP: Final = 40  # above it something ends

# Lumas are in thousandths of a grey level: whole numbers, so they are exact, as are their differences. Grey frames lie
# just on the bounds of bins and of steps, where rounding would decide.
_LEVEL: Final = 1000
_LUMA: Final = (299, 587, 114)


@dataclass(frozen=True, slots=True)
class FrameStatistics:
    """Of B frames; each column float32 ``[B]``, to be stored under its name.

    Attributes:
        mean: Of the luma, 0..255.
        std: Its standard deviation.
        entropy: Of its histogram of 32 bins, 0..5 bits.
        blur: Variance of its Laplacian over its own variance: low where nothing is sharp, however dark the frame; about
            15 in snow. 0 for one colour.
        biggest_bin: Share of the pixels in the fullest bin of the histogram.
        flat_share: Share of the pixels that differ by less than 2 from the next ones, to the right and below.
        edge_share: Share that differ by more than 40.
    """

    mean: Floats
    std: Floats
    entropy: Floats
    blur: Floats
    biggest_bin: Floats
    flat_share: Floats
    edge_share: Floats

    def __len__(self) -> int:
        return len(self.mean)

    def columns(self) -> dict[str, Floats]:
        """By name, for a table. ``FrameStatistics(**columns)`` is the way back."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


STATISTICS: Final = tuple(field.name for field in fields(FrameStatistics))
"""Names of the columns."""


def squash224(rgb: UInt8) -> UInt8:
    """The whole frame in a square of 224 x 224, whatever its shape.

    Args:
        rgb: uint8 ``[height, width, 3]``, of any size from 1 x 1.

    Returns:
        uint8 ``[224, 224, 3]``, its own memory.
    """
    # As sharp as a bicubic filter (which the thresholds were found with), in three fifths of the time.
    return np.array(Image.fromarray(rgb).resize((SIDE, SIDE), Image.Resampling.HAMMING))


def statistics_of(frames: UInt8) -> FrameStatistics:
    """Look at frames. The first call of a process imports JAX and compiles, in 0.3 s.

    One call for each frame: what a frame gets depends on nothing else, any number needs no other program, and on a CPU
    it is as fast as a loop within JAX (measured: 0.22 ms a frame against 0.25).

    Args:
        frames: uint8 ``[B, 224, 224, 3]``, sRGB, squashed: see `squash224`.

    Raises:
        ConfigError: they have another shape or dtype.
    """
    if frames.shape[1:] != (SIDE, SIDE, 3) or frames.dtype != np.uint8:
        raise ConfigError(
            f"statistics are of uint8 frames [B, {SIDE}, {SIDE}, 3], and these are {frames.dtype} {list(frames.shape)}"
        )
    look = _kernel()
    rows = np.empty((len(frames), len(STATISTICS)), np.float32)
    for row, frame in zip(rows, frames, strict=True):
        row[:] = look(frame)
    return FrameStatistics(*np.ascontiguousarray(rows.T))


@functools.cache
def _kernel() -> Callable[[UInt8], jax.Array]:
    """The jitted function: a frame uint8 ``[224, 224, 3]`` -> float32 ``[7]``, in the order of `STATISTICS`."""
    import jax
    import jax.numpy as jnp

    def look(frame: jax.Array) -> jax.Array:
        channels = (frame[..., channel].astype(jnp.float32) * weight for channel, weight in enumerate(_LUMA))
        luma: jax.Array = functools.reduce(operator.add, channels)
        variance, sharpness = _variance(luma), _variance(_laplacian(luma))
        bins = ((luma + 0.5) * (_BINS / (256 * _LEVEL))).astype(jnp.int32)
        histogram = jnp.zeros(_BINS).at[bins.reshape(-1)].add(1) / luma.size
        step = _steps(luma)
        return jnp.stack(
            [
                luma.mean() / _LEVEL,
                jnp.sqrt(variance) / _LEVEL,
                -(histogram * jnp.log2(jnp.where(histogram > 0, histogram, 1))).sum(),
                jnp.where(variance > 0, sharpness / jnp.where(variance > 0, variance, 1), 0),
                histogram.max(),
                (step < _FLAT_STEP * _LEVEL).mean(),
                (step > _EDGE_STEP * _LEVEL).mean(),
            ]
        )

    return jax.jit(look)


def _variance(values: jax.Array) -> jax.Array:
    """As XLA fuses it with its neighbours: ``values.var()`` makes the kernel take twice the time."""
    centred = values - values.mean()
    return (centred * centred).mean()


def _laplacian(luma: jax.Array) -> jax.Array:
    """Of the four neighbours; one pixel less on each side."""
    return 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]


def _steps(luma: jax.Array) -> jax.Array:
    """By how much each pixel differs from the one to the right and the one below, whichever is more."""
    import jax.numpy as jnp

    here = luma[:-1, :-1]
    return jnp.maximum(jnp.abs(luma[:-1, 1:] - here), jnp.abs(luma[1:, :-1] - here))
