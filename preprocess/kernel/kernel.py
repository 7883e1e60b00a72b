"""The resample, crop and normalize kernel: JAX, compiled once per scale class, for all picture sizes.

Resampling is separable and banded: an output pixel depends on a few neighbouring source pixels. For a block of
neighbouring output pixels those bands lie in one window, so each pass is a batch of small matrix products over windows
that are sliced at run time. docs/kernel.md has the measurements behind each choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from ..spec import Interpolation, PreprocessSpec
from ..transforms import find_transform
from .canvas import Float32
from .geometry import SUPPORT, canvas_side, scale_limit
from .packed import UInt32

_BLOCK_ROWS: Final = 4
_BLOCK_COLUMNS: Final = 8

Array = jax.Array
_Program = Callable[[UInt32, Float32, NDArray[np.int32], np.int32, Array], Array]


class Kernel:
    """From canvases to finished pixels. Compiled once for all picture sizes of a scale class; there are two classes.

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
        branches = [_Branch(spec, window) for window in _classes(spec)]
        self._limits = np.array([branch.limit for branch in branches[:-1]], np.float32)
        self._programs = [self._program(branch) for branch in branches]
        # Not jnp.zeros, which compiles a program of its own (0.1 s); not an alias either, which could not be donated.
        empty = np.zeros((rows, *spec.pixel_shape()), spec.pixel_dtype())
        self._out: Array = jax.device_put(empty, may_alias=False)

    @property
    def classes(self) -> int:
        """How many scale classes, and so programs, there are."""
        return len(self._programs)

    def __call__(self, canvas: UInt32, params: Float32, rows: Sequence[int]) -> Array:
        """Run it.

        Args:
            canvas: Packed pixels, uint32 ``[rows, c, c]``, 64-byte aligned (else XLA copies it); must not change until
                the result is ready.
            params: float32 ``[rows, 6]``, see `Placement`.
            rows: Which of them.

        Returns:
            ``[rows, *spec.pixel_shape()]``, a JAX array that the next call destroys: copy what you keep. Rows that were
            not asked for hold anything.
        """
        asked = np.asarray(rows, np.int32)
        belongs = np.searchsorted(self._limits, params[asked, 2:4].max(axis=1))
        for number in range(self.classes):
            mine = asked[belongs == number]
            if mine.size:
                self._run(number, canvas, params, mine)
        return self._out

    def compile(self, number: int, canvas: UInt32, params: Float32) -> None:
        """Compile one class's program before it is needed, by running it on no picture."""
        self._run(number, canvas, params, np.empty(0, np.int32))

    def compilations(self) -> int:
        """How many executables there are: after any number of calls at most one per class."""
        return sum(int(cast("Any", program)._cache_size()) for program in self._programs)

    def _run(self, number: int, canvas: UInt32, params: Float32, rows: NDArray[np.int32]) -> None:
        order = np.zeros(self.rows, np.int32)
        order[: rows.size] = rows
        self._out = self._programs[number](canvas, params, order, np.int32(rows.size), self._out)

    def _program(self, branch: _Branch) -> _Program:
        """The jitted loop of a class over the rows that belong to it.

        A program per class, because the first batch waits for its compilation (0.3 to 0.45 s each), and because a
        `lax.switch` inside one loop would copy each picture's result once more (+6 %). Donated, the last result's
        memory takes the next one: 19 MB less to clear and to fault in per batch (-5 %).
        """

        def batch(canvas: Array, params: Array, order: Array, count: Array, out: Array) -> Array:
            self.traces += 1

            def step(turn: Array, stored: Array) -> Array:
                i = order[turn]
                filled: Array = lax.dynamic_update_index_in_dim(stored, branch(canvas, params[i], i), i, 0)
                return filled

            stored = out.reshape(self.rows, *_stored_shape(self.spec))
            done: Array = lax.fori_loop(jnp.int32(0), count, step, stored).reshape(out.shape)
            return done

        program: _Program = jax.jit(batch, donate_argnums=4)
        return program


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
        # Functions of jax.numpy are jitted, each for itself. Traced so, the program is the same after XLA has inlined
        # them, but tracing and lowering take a quarter more (0.14 s instead of 0.11), in every worker. Not for a user's
        # transform: control flow would not be traced.
        with jax.disable_jit():
            y = self._resample(canvas, p, i)
        return self._finish(y)

    def _resample(self, canvas: Array, p: Array, i: Array) -> Array:
        """Float32 [3, size, blocks, block] of 0..255."""
        side, out, columns = canvas_side(self.spec), self.spec.size, self.columns
        zero, piece = jnp.int32(0), (1, self.row_window, columns)
        start, weights = _bands(p[1], p[3], p[5], self.spec, _BLOCK_ROWS, self.row_window, side)
        # Sliced out of the whole canvas: one row of it taken first would be copied.
        slabs = _planes(jax.vmap(lambda a: lax.dynamic_slice(canvas, (i, a, zero), piece)[0])(start))
        t = jnp.einsum("nok,nkm->nom", weights, slabs, precision="highest")
        t = t.reshape(-1, 3 * columns)[:out].reshape(3 * out, columns)  # rows of red, green, blue in turn
        start, weights = _bands(p[0], p[2], p[4], self.spec, _BLOCK_COLUMNS, self.column_window, columns)
        slabs = jax.vmap(lambda a: lax.dynamic_slice(t, (zero, a), (3 * out, self.column_window)))(start)
        y = jnp.einsum("nok,nmk->nmo", weights, slabs, precision="highest")
        return jnp.clip(y.reshape(-1, out, 3, _BLOCK_COLUMNS).transpose(2, 1, 0, 3), 0.0, 255.0)


def _planes(packed: Array) -> Array:
    """uint32 [n, k, m] of packed pixels to float32 [n, k, 3 * m], the channels one after the other."""
    planes = [(packed >> jnp.uint32(shift)) & jnp.uint32(255) for shift in (0, 8, 16)]
    # By way of int32, for which there are vector conversions. Shifted by a broadcast array instead: twice the time.
    floats = jnp.stack([plane.astype(jnp.int32).astype(jnp.float32) for plane in planes], axis=2)
    return floats.reshape(*packed.shape[:2], 3 * packed.shape[2])


def _up(value: float, step: int) -> int:
    return step * math.ceil(value / step)


def _classes(spec: PreprocessSpec) -> range:
    """Row windows in source pixels, the last good for the scale limit. Multiples of 4: 15 taps are slower than 16.

    Two classes. A third (8 taps, for pictures within 14 % of the target size) would save those 25 % of the kernel.
    """
    most = _up((_BLOCK_ROWS - 1 + 2 * SUPPORT[spec.interpolation]) * scale_limit(spec.size), 4)
    return range(most - 4, most + 1, 4)


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
    """From float32 [3, size, blocks, block] of 0..255 to what the spec wants of one picture, in `_stored_shape`."""
    transform = find_transform(spec.transform) if spec.transform else None
    split = _is_split(spec)

    def finish(y: Array) -> Array:
        if not split:
            y = y.reshape(3, spec.size, -1)[:, :, : spec.size]
        if transform is not None:
            return cast("Array", transform(jnp.moveaxis(y, 0, -1)))
        if spec.dtype == "uint8":
            y = jnp.floor(y + 0.5)
        elif spec.mean is not None and spec.std is not None:
            std = np.array(spec.std).reshape(3, *[1] * (y.ndim - 1))
            mean = np.array(spec.mean).reshape(std.shape)
            y = y * (1 / (255 * std)).astype(np.float32) + (-mean / std).astype(np.float32)
        y = y.astype(spec.dtype)
        return y if spec.layout == "NCHW" else jnp.moveaxis(y, 0, -1)

    return finish


def _is_split(spec: PreprocessSpec) -> bool:
    return spec.transform is None and spec.size % _BLOCK_COLUMNS == 0


def _stored_shape(spec: PreprocessSpec) -> tuple[int, ...]:
    """Shape in which a row is stored: columns stay split in blocks where they can.

    It is the same memory, but XLA then copies runs of a block; over whole rows it divides to find each pixel's block
    and copies pixels one by one (15 % of the kernel).
    """
    if not _is_split(spec):
        return spec.pixel_shape()
    split = (spec.size // _BLOCK_COLUMNS, _BLOCK_COLUMNS)
    return (3, spec.size, *split) if spec.layout == "NCHW" else (spec.size, *split, 3)
