"""GIST in JAX: a global descriptor of layout and texture, 512 floats, nothing to download.

Oliva & Torralba, "Modeling the Shape of the Scene" (IJCV 2001), in grey with 4 scales of 8 orientations on a 4 x 4
grid; on small squashed squares, as Douze et al. (CIVR 2009) do for near-duplicate search at web scale. It says how a
picture is composed, not what it shows. In order:

1. grey: the mean of the three channels, 0..255; larger pixels are averaged down to the working size by area.
2. prefilter: ``log(1 + x)``, minus a Gaussian low-pass of 4 cycles per picture, divided by ``0.2 +`` the local standard
   deviation under the same Gaussian; on the picture extended by 5 mirrored pixels on each side.
3. 32 Gabor transfer functions in the Fourier domain (periodic boundary), inverse transform, magnitude.
4. the mean of each magnitude over each of the 16 blocks; then unit length.

Speeds and what was tried stand in the README.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, EmbedderError
from .base import (
    NONE_REFUSED,
    Embedder,
    Options,
    PixelPreferences,
    Pixels,
    Refusals,
    Runs,
    View,
    digest,
    need_batch,
    no_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import jax

Floats = NDArray[np.float32]

SCALES, ORIENTATIONS, GRID = 4, 8, 4
DIMENSION = SCALES * ORIENTATIONS * GRID * GRID
DEFAULT_SIZE = 64
_SIZES = range(32, 257, 4)

_PAD = 5  # mirrored pixels around the picture for the prefilter
_CUTOFF = 4.0  # cycles per (extended) picture at which the low-pass is one half
_CONTRAST = 0.2  # keeps flat regions from being blown up into noise
# Added to each mean before the length is made one: a blank picture has no texture at all, and would otherwise get a
# vector of rounding noise. Textured pictures have means of about 0.02 to 0.3.
_FLOOR = 1e-5

# Of matrix products: an accelerator would else round to fewer bits than a CPU, and vectors of the two would differ.
_PRECISION = "highest"

# Raise it when the same pixels begin to give other vectors.
_VERSION = 1


class Gist(Embedder):
    """The built-in embedder, ``gist`` or ``gist:SIZE``; runs in the worker that made the pixels.

    Takes uint8, float16 or float32 pixels, normalized or not, in both layouts, of the working size or larger.
    """

    runs: ClassVar[Runs] = "worker"

    def __init__(self, size: int = DEFAULT_SIZE) -> None:
        if size not in _SIZES:
            raise ConfigError(
                f"gist:{size}: the working size must be a multiple of 4 of {_SIZES[0]}..{_SIZES[-1]} pixels"
            )
        super().__init__("gist", "gist" if size == DEFAULT_SIZE else f"gist:{size}")
        self.size = size
        self._rows = 0
        self._run: Callable[[NDArray[np.generic]], jax.Array] | None = None

    @property
    def dimension(self) -> int:
        return DIMENSION

    @property
    def fingerprint(self) -> str:
        return digest("gist", str(_VERSION), str(self.size))

    @property
    def wants(self) -> PixelPreferences:
        return PixelPreferences(size=self.size, squash=True, dtype="uint8")

    def memory(self, spec: Pixels, rows: int) -> int:
        """Spectra and responses of one picture, both complex, and the batch in grey."""
        del spec
        padded = self.size + 2 * _PAD
        return 2 * 8 * SCALES * ORIENTATIONS * padded**2 + 4 * rows * padded**2

    def check(self, spec: Pixels) -> None:
        if spec.transform is not None:
            raise ConfigError(f"{self.spec} needs plain pixels: leave out transform={spec.transform!r}")
        if spec.size < self.size:
            fitting = spec.size // 4 * 4
            other = f", or use the embedder gist:{fitting}" if fitting in _SIZES else ""
            raise ConfigError(
                f"{self.spec} works on {self.size} x {self.size} pixels, and pixels are {spec.size} x {spec.size}: "
                f"raise --image-size to {self.size} or more{other}"
            )

    def open(self, spec: Pixels, rows: int) -> None:
        self.check(spec)
        self._rows = rows
        self._run = _compile(spec, self.size)

    def embed(self, view: View, rows: int) -> Refusals:
        if self._run is None:
            raise EmbedderError("gist: embed() before open()")
        need_batch(self, view, rows, self._rows)
        # Always the whole batch: one compile serves every row count, and only a job's last batch is not full.
        view.embeddings[:rows] = np.asarray(self._run(view.pixels))[:rows]
        return NONE_REFUSED

    def close(self) -> None:
        self._run = None


def make_gist(rest: str, options: Options) -> Gist:
    """``gist`` or ``gist:SIZE``.

    Raises:
        ConfigError: the size is not one, or an option was given.
    """
    no_options("gist", options)
    if rest and not (rest.isdecimal() and len(rest) < 5):  # int() refuses thousands of digits with an error of its own
        raise ConfigError(f"gist:{rest}: after the colon comes the working size in pixels, e.g. gist:{DEFAULT_SIZE}")
    return Gist(int(rest) if rest else DEFAULT_SIZE)


def _compile(spec: Pixels, size: int) -> Callable[[NDArray[np.generic]], jax.Array]:
    """The jitted function: pixels ``[B, *row]`` -> vectors ``[B, 512]``. It compiles when it is first called."""
    import jax
    from jax import lax

    shrink = area_matrix(spec.size, size)
    weights, offset = _grey_weights(spec)
    low, low_cropped = _low_pass(size)
    gabor = gabor_bank(size)

    def one(picture: jax.Array) -> jax.Array:
        axis = 0 if spec.layout == "NCHW" else -1
        grey = _grey(picture, axis, weights, offset)
        if spec.size != size:
            grey = _both_axes(shrink, grey)
        return _describe(_prefilter(grey, low, low_cropped), gabor)

    # On a CPU one picture after the other stays in cache; an accelerator wants them all at once.
    # Steps 3 and 4 in micro-batches of 1, 2, 4 took 0.45 ms a picture each at 64; at 128 (one run) 2.1, 3.1, 4.0.
    config: Any = jax.config  # untyped
    device = config.jax_default_device
    micro = 1 if (jax.default_backend() if device is None else device.platform) == "cpu" else None

    def batch(pixels: jax.Array) -> jax.Array:
        vectors: jax.Array = lax.map(one, pixels, batch_size=micro or len(pixels))
        return vectors

    return jax.jit(batch)


def _grey_weights(spec: Pixels) -> tuple[Floats, float]:
    """Per-channel factors and an offset that take stored pixels back to a grey of 0..255."""
    if spec.dtype == "uint8" or spec.mean is None or spec.std is None:  # uint8 is never normalized
        return np.full(3, 1 / 3, np.float32), 0.0
    return np.float32(255 / 3) * np.asarray(spec.std, np.float32), 255 * sum(spec.mean) / 3


def _grey(picture: jax.Array, axis: int, weights: Floats, offset: float) -> jax.Array:
    import jax.numpy as jnp

    grey: jax.Array = jnp.tensordot(picture.astype(np.float32), weights, axes=(axis, 0), precision=_PRECISION)
    return grey + np.float32(offset)


def _both_axes(matrix: Floats, picture: jax.Array) -> jax.Array:
    """``matrix @ picture @ matrix.T``: a separable linear filter."""
    import jax.numpy as jnp

    return jnp.matmul(jnp.matmul(matrix, picture, precision=_PRECISION), matrix.T, precision=_PRECISION)


def _prefilter(grey: jax.Array, low: Floats, low_cropped: Floats) -> jax.Array:
    """Local contrast normalization. The Gaussian is separable, so each low-pass is two small matrix products."""
    import jax.numpy as jnp

    # Denormalized float16 may fall a little under 0 where a picture is black.
    wide = jnp.pad(jnp.log1p(jnp.maximum(grey, 0)), _PAD, mode="symmetric")
    high = wide - _both_axes(low, wide)
    deviation = jnp.sqrt(jnp.abs(_both_axes(low_cropped, high * high)))
    return high[_PAD:-_PAD, _PAD:-_PAD] / (_CONTRAST + deviation)


def _describe(picture: jax.Array, gabor: Floats) -> jax.Array:
    import jax.numpy as jnp

    magnitude = jnp.abs(jnp.fft.ifft2(jnp.fft.fft2(picture) * gabor))
    side = picture.shape[0] // GRID
    means = magnitude.reshape(-1, GRID, side, GRID, side).mean((2, 4)).reshape(-1) + _FLOOR
    unit: jax.Array = means / jnp.linalg.norm(means)
    return unit


def gabor_bank(size: int) -> Floats:
    """Transfer functions ``[32, size, size]`` in the order of ``fft2``, scales from fine to coarse.

    Centre frequencies are 0.3 / 1.85**scale cycles per pixel; the figures are those of the authors' published toolbox.
    """
    frequency = np.fft.fftfreq(size)
    fx, fy = np.meshgrid(frequency, frequency)
    radius, angle = np.hypot(fx, fy), np.arctan2(fy, fx)
    sharpness = 16 * ORIENTATIONS**2 / 32**2
    bank = np.empty((SCALES * ORIENTATIONS, size, size), np.float32)
    for index in range(len(bank)):
        scale, orientation = divmod(index, ORIENTATIONS)
        turned = (angle + np.pi * orientation / ORIENTATIONS + np.pi) % (2 * np.pi) - np.pi
        radial = 10 * 0.35 * (radius / (0.3 / 1.85**scale) - 1) ** 2
        bank[index] = np.exp(-radial - 2 * sharpness * np.pi * turned**2)
    return bank


def _low_pass(size: int) -> tuple[Floats, Floats]:
    """The low-pass of the extended picture as one matrix for each axis: ``[wide, wide]``, and its rows inside."""
    wide = size + 2 * _PAD
    cycles = np.fft.fftfreq(wide) * wide
    transfer = np.exp(-(cycles**2) * np.log(2) / _CUTOFF**2)
    low = np.fft.ifft(transfer[:, None] * np.fft.fft(np.eye(wide), axis=0), axis=0).real.astype(np.float32)
    return low, low[_PAD:-_PAD]


def area_matrix(source: int, target: int) -> Floats:
    """``[target, source]``: each output pixel is the mean of the input it covers, pixels cut in two by proportion."""
    edges = np.arange(target + 1) * source / target
    pixel = np.arange(source)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.clip(covered, 0, None) * target / source, np.float32)
