"""The resample, crop and normalize kernel: JAX, one compilation for all picture sizes.

Resampling is separable and banded: an output pixel depends on a few neighbouring source pixels. For a block of
neighbouring output pixels those bands lie in one window, so each pass is a batch of small matrix products over windows
that are sliced at run time. docs/kernel.md has the measurements behind each choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .canvas import Float32, UInt8
from .geometry import SUPPORT, canvas_side, scale_limit
from .spec import Interpolation, PreprocessSpec
from .transforms import find_transform

_BLOCK_ROWS: Final = 4
_BLOCK_COLUMNS: Final = 8
Array = jax.Array


class Kernel:
    """From canvases to finished pixels, compiled once for (`spec`, `rows`).

    Starts a JAX backend when made. Not for several threads at once.

    Args:
        spec: What to make.
        rows: Pictures in a call, at least 1.

    Raises:
        ConfigError: The spec's transform cannot be imported or traced.
    """

    def __init__(self, spec: PreprocessSpec, rows: int) -> None:
        self.spec = spec
        self.rows = rows
        self.traces = 0
        self._out = jnp.zeros((rows, *spec.pixel_shape()), spec.pixel_dtype())
        branches = [_Branch(spec, window) for window in _classes(spec)]

        def batch(canvas: Array, params: Array, out: Array) -> Array:
            self.traces += 1
            return _by_class(branches, canvas, params, out)

        # Donated, the last result's memory takes the next one: 19 MB less to clear and to fault in per batch (-5 %).
        self._call: Callable[[UInt8, Float32, Array], Array] = jax.jit(batch, donate_argnums=2)

    def __call__(self, canvas: UInt8, params: Float32) -> Array:
        """Run it.

        Args:
            canvas: uint8 ``[rows, c, c, 3]``, 64-byte aligned (else XLA copies it); must not change until the result
                is ready.
            params: float32 ``[rows, 6]``, see `Placement`.

        Returns:
            ``[rows, *spec.pixel_shape()]``, a JAX array that the next call destroys: copy what you keep.
        """
        self._out = self._call(canvas, params, self._out)
        return self._out

    def compilations(self) -> int:
        """How many executables there are: 1 after any number of calls."""
        return int(cast("Any", self._call)._cache_size())


class _Branch:
    """The kernel for pictures up to one scale: a smaller scale needs fewer taps and fewer columns.

    The filter reads an open interval of ``(block - 1 + 2 * reach) * scale`` pixels for a block of outputs, which
    holds no more whole pixels than that, rounded up.
    """

    def __init__(self, spec: PreprocessSpec, row_window: int) -> None:
        reach = SUPPORT[spec.interpolation]
        self.spec = spec
        self.row_window = row_window
        self.limit = min(row_window / (_BLOCK_ROWS - 1 + 2 * reach), scale_limit(spec.size))
        self.column_window = _up((_BLOCK_COLUMNS - 1 + 2 * reach) * self.limit, 4)
        self.columns = min(_up(spec.size * self.limit + 2 * (reach * self.limit + 1) + 2, 8), canvas_side(spec))
        self._finish = _finisher(spec)

    def __call__(self, canvas: Array, p: Array, i: Array) -> Array:
        """From the canvas, one row's parameters and its number to that row's finished pixels."""
        side, out, columns = canvas_side(self.spec), self.spec.size, self.columns
        start, weights = _bands(p[1], p[3], p[5], self.spec, _BLOCK_ROWS, self.row_window, side)
        # Sliced out of the whole canvas: one row of it taken first would be copied.
        rows, zero = canvas.reshape(-1, side, 3 * side), jnp.int32(0)
        piece = (1, self.row_window, 3 * columns)
        slabs = jax.vmap(lambda a: lax.dynamic_slice(rows, (i, a, zero), piece)[0])(start)
        t = jnp.einsum("nok,nkm->nom", weights, slabs.astype(jnp.float32), precision="highest")
        t = t.reshape(-1, columns, 3)[:out].transpose(2, 0, 1).reshape(3 * out, columns)
        start, weights = _bands(p[0], p[2], p[4], self.spec, _BLOCK_COLUMNS, self.column_window, columns)
        slabs = jax.vmap(lambda a: lax.dynamic_slice(t, (zero, a), (3 * out, self.column_window)))(start)
        y = jnp.einsum("nok,nmk->mno", weights, slabs, precision="highest").reshape(3, out, -1)[:, :, :out]
        return self._finish(jnp.clip(y, 0.0, 255.0))


def _up(value: float, step: int) -> int:
    return step * math.ceil(value / step)


def _classes(spec: PreprocessSpec) -> range:
    """Row windows in source pixels, the last good for the scale limit. Multiples of 4: 15 taps are slower than 16."""
    most = _up((_BLOCK_ROWS - 1 + 2 * SUPPORT[spec.interpolation]) * scale_limit(spec.size), 4)
    return range(8, most + 1, 4)


def _by_class(branches: list[_Branch], canvas: Array, params: Array, out: Array) -> Array:
    """Each picture through the first branch that is wide enough for it.

    One loop per branch over the rows that belong to it: a `lax.switch` inside one loop would copy each picture's result
    once more (+6 %).
    """
    limits = jnp.array([branch.limit for branch in branches[:-1]], jnp.float32)
    belongs = jnp.sum(jnp.maximum(params[:, 2], params[:, 3])[:, None] > limits, axis=1, dtype=jnp.int32)
    order = jnp.argsort(belongs).astype(jnp.int32)
    last = jnp.int32(0)
    for number, branch in enumerate(branches):
        first, last = last, jnp.sum(belongs <= number, dtype=jnp.int32)
        out = lax.fori_loop(first, last, _step(branch, canvas, params, order), out)
    return out


def _step(branch: _Branch, canvas: Array, params: Array, order: Array) -> Callable[[Array, Array], Array]:
    def step(turn: Array, out: Array) -> Array:
        i = order[turn]
        filled: Array = lax.dynamic_update_index_in_dim(out, branch(canvas, params[i], i), i, 0)
        return filled

    return step


def _bands(
    x0: Array, scale: Array, limit: Array, spec: PreprocessSpec, block: int, window: int, side: int
) -> tuple[Array, Array]:
    """First source pixel per block, and weights float32 [blocks, block, window], by Pillow's rule."""
    blocks = -(-spec.size // block)
    wide = jnp.maximum(scale, 1.0)
    centre = x0 + (jnp.arange(blocks * block, dtype=jnp.float32).reshape(blocks, block) + 0.5) * scale
    start = jnp.floor(centre[:, 0] - SUPPORT[spec.interpolation] * wide + 0.5).astype(jnp.int32)
    start = jnp.clip(start, 0, side - window)
    x = (start[:, None] + jnp.arange(window, dtype=jnp.int32)).astype(jnp.float32)
    w = _filter(spec.interpolation, (x[:, None, :] - centre[:, :, None] + 0.5) / wide)
    w = jnp.where(x[:, None, :] < limit, w, 0.0)
    total = w.sum(2, keepdims=True)
    # Blocks that only fill up the last one may lie outside the picture, where the sum is 0.
    return start, w / jnp.where(total == 0.0, 1.0, total)


def _filter(name: Interpolation, x: Array) -> Array:
    x = jnp.abs(x)
    if name == "bilinear":
        return jnp.maximum(1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


def _finisher(spec: PreprocessSpec) -> Callable[[Array], Array]:
    """From float32 [3, size, size] of 0..255 to what the spec wants of one picture."""
    if spec.transform is not None:
        transform = find_transform(spec.transform)
        return lambda y: transform(y.transpose(1, 2, 0))
    scale, bias = _normalization(spec)

    def finish(y: Array) -> Array:
        if spec.dtype == "uint8":
            y = jnp.floor(y + 0.5)
        elif spec.mean is not None:
            y = y * scale + bias
        y = y.astype(spec.dtype)
        return y if spec.layout == "NCHW" else y.transpose(1, 2, 0)

    return finish


def _normalization(spec: PreprocessSpec) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    std = np.array(spec.std or (1.0, 1.0, 1.0), np.float64)
    mean = np.array(spec.mean or (0.0, 0.0, 0.0), np.float64)
    return (1 / (255 * std)).astype(np.float32)[:, None, None], (-mean / std).astype(np.float32)[:, None, None]
