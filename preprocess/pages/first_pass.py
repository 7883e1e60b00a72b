"""The first look at a page: how much energy the row profile of a patch has at each slope. JAX, any device.

A patch that is sheared by the slope of its lines of text has the spikiest profile of rows. The energy of that profile
for 161 slopes is computed exactly in the Fourier domain by two small matrix products: no interpolation, no FFT, one
compiled program for all pages. The same on nine half-overlapping cells of a patch shows how slopes differ across it.
What comes back for a patch are 891 numbers: for a page of 2000 x 3000 84 kB instead of its pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from .patches import CELL, PATCH, PatchGrid, UInt8, grey

if TYPE_CHECKING:
    import jax

Float32 = npt.NDArray[np.float32]

CELLS_A_SIDE: Final = 3

PAGE_ANGLES: Final = np.linspace(-20.0, 20.0, 161)
"""Slopes that a whole patch is tried with, in degrees, counter-clockwise positive."""

CELL_ANGLES: Final = np.linspace(-20.0, 20.0, 81)
"""The same for a cell."""

FEATURES: Final = len(PAGE_ANGLES) + CELLS_A_SIDE**2 * len(CELL_ANGLES) + 1
"""Numbers a patch: energies of the patch, energies of its cells, and the deviation of its pixels."""

_ROW, _COLUMN = 2, 8
"""Pixels that are averaged: rows of a profile are 2 pixels high; along a line of text little changes within 8."""

_HIGHEST = 0.16
"""Cycles a pixel. Above it lie the strokes of letters, which have slopes of their own (an italic's)."""

# Of matrix products: an accelerator would else round to fewer bits than a CPU.
_PRECISION = "highest"


class FirstPass:
    """Energies of patches by slope, a batch at a time. Threads may share one.

    Args:
        batch: Patches that are computed at once. Another number of patches than a multiple of it costs no compilation:
            the last batch is filled up.

    Raises:
        ConfigError: `batch` is below 1.
    """

    def __init__(self, batch: int = 8) -> None:
        if batch < 1:
            raise ConfigError(f"batch={batch}: a batch of patches has at least one")
        self.batch = batch
        self._run = _compile()

    def __call__(self, patches: UInt8) -> Float32:
        """Look at any number of patches.

        Args:
            patches: uint8 ``[n, 512, 512]``, grey.

        Returns:
            float32 ``[n, 891]``; see `split`.
        """
        features = np.empty((len(patches), FEATURES), np.float32)
        for start in range(0, len(patches), self.batch):
            some = patches[start : start + self.batch]
            full = np.pad(some, [(0, self.batch - len(some)), (0, 0), (0, 0)]) if len(some) < self.batch else some
            features[start : start + len(some)] = np.asarray(self._run(full))[: len(some)]
        return features

    def of_page(self, page: UInt8, grid: PatchGrid) -> Float32:
        """Look at one page alone, without an engine around it.

        Args:
            page: uint8 ``[height, width]`` or ``[height, width, 3]``.
            grid: its patches.

        Returns:
            float32 ``[len(grid), 891]``.
        """
        batches = (range(start, min(start + self.batch, len(grid))) for start in range(0, len(grid), self.batch))
        return np.concatenate([self(np.stack([grey(grid.cut(page, index)) for index in batch])) for batch in batches])


def split(features: Float32) -> tuple[Float32, Float32, Float32]:
    """What `FirstPass` returned, by what it is.

    Args:
        features: float32 ``[n, 891]``.

    Returns:
        Energies of the patches ``[n, 161]``, of their cells in reading order ``[n, 9, 81]``, and standard deviations of
        their pixels in grey levels ``[n]``.
    """
    patches, cells, deviations = np.split(features, [len(PAGE_ANGLES), FEATURES - 1], axis=1)
    return patches, cells.reshape(len(features), -1, len(CELL_ANGLES)), deviations[:, 0]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Constants for square windows of one size; rows and columns are those of averaged pixels.

    The shears of ``a`` and of ``-a`` differ in the sign of their sines only, so columns are folded at the middle and
    each product is done once for both: a quarter of the arithmetic.

    Attributes:
        window: Hann weights ``[rows, columns]``.
        transform: Fourier transform along y, cosines and sines ``[2, frequencies, rows]``.
        cosines: of the shears, ``[frequencies, columns / 2, angles]``, for angles from 0 up.
        sines: the same.
        weights: of the frequencies ``[frequencies]``.
    """

    window: Float32
    transform: Float32
    cosines: Float32
    sines: Float32
    weights: Float32


def _plan(side: int, angles: npt.NDArray[np.float64], frequencies: int, lowest: float) -> _Plan:
    rows, columns = side // _ROW, side // _COLUMN
    frequency = np.linspace(lowest, _HIGHEST, frequencies)
    y = np.arange(rows) * _ROW
    x = (np.arange(columns // 2) + 0.5) * _COLUMN  # right of the middle
    along = 2 * np.pi * frequency[:, None] * y
    shear = 2 * np.pi * frequency[:, None, None] * x[:, None] * np.tan(np.deg2rad(angles[len(angles) // 2 :]))
    single = np.float32
    return _Plan(
        np.outer(_hann(rows), _hann(columns)).astype(single),
        np.stack([np.cos(along), -np.sin(along)]).astype(single),
        np.cos(shear).astype(single),
        np.sin(shear).astype(single),
        frequency.astype(single),
    )


def _hann(length: int) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length), np.float64)


def _compile() -> Callable[[UInt8], jax.Array]:
    """The jitted function: patches uint8 ``[B, 512, 512]`` -> features float32 ``[B, 891]``."""
    import jax
    import jax.numpy as jnp

    whole = _plan(PATCH, PAGE_ANGLES, 72, 6 / 512)
    cell = _plan(CELL, CELL_ANGLES, 40, 8 / 512)

    def look(patch: jax.Array) -> jax.Array:
        rows, columns = PATCH // _ROW, PATCH // _COLUMN
        pixels = patch.astype(jnp.float32).reshape(rows, _ROW, columns, _COLUMN).mean((1, 3))
        cells = jnp.stack([_cell(pixels, *divmod(index, CELLS_A_SIDE)) for index in range(CELLS_A_SIDE**2)])
        energies = _energy(pixels, whole), jax.vmap(lambda one: _energy(one, cell))(cells).reshape(-1)
        return jnp.concatenate([*energies, pixels.std()[None]])

    return jax.jit(jax.vmap(look))


def _cell(pixels: jax.Array, row: int, column: int) -> jax.Array:
    height, width = CELL // _ROW, CELL // _COLUMN
    top, left = row * height // 2, column * width // 2
    return pixels[top : top + height, left : left + width]


def _energy(pixels: jax.Array, plan: _Plan) -> jax.Array:
    """Energy of the row profile after each shear: ``[rows, columns]`` -> ``[angles]``."""
    import jax.numpy as jnp

    def product(subscripts: str, *operands: Any) -> jax.Array:
        result: jax.Array = jnp.einsum(subscripts, *operands, precision=_PRECISION)
        return result

    centred = (pixels - (pixels * plan.window).sum() / plan.window.sum()) * plan.window
    spectrum = product("cfy,yx->fcx", plan.transform, centred)
    middle = pixels.shape[1] // 2
    right, left = spectrum[..., middle:], spectrum[..., :middle][..., ::-1]
    even = product("fcx,fxa->cfa", right + left, plan.cosines)
    odd = product("fcx,fxa->cfa", right - left, plan.sines)
    # sum over x of spectrum * exp(-i * shear), once for each sign of the angle
    rising = (even[0] + odd[1]) ** 2 + (even[1] - odd[0]) ** 2
    falling = (even[0] - odd[1]) ** 2 + (even[1] + odd[0]) ** 2
    both = jnp.concatenate([falling[:, :0:-1], rising], axis=1)
    return product("f,fa->a", plan.weights, both)
