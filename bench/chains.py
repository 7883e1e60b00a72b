"""Chains on one core: JPEG bytes in memory to a normalized float32 NCHW batch in a shared slot, done in several ways.

All take the centre square, resize it by an antialiased bicubic with Pillow's coefficients and decode with the exact
inverse transform, so all make nearly the same pixels. (``fastdct`` and ``fastupsample`` would make the simplejpeg
chains 4 % faster and other pixels.)
"""

from __future__ import annotations

import ctypes
import importlib
import io
import mmap
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from .child import Measure, Measures
from .workload import BATCH, MEAN, SIZE, STD, pixels

if TYPE_CHECKING:
    from ..preprocess.spec import PreprocessSpec
    from ..preprocess.worker.preprocessor import Preprocessor

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
Fill = Callable[[Sequence[bytes], Float32], None]

_SCALE: Final = (1 / (255 * np.asarray(STD))).astype(np.float32)
_BIAS: Final = (-np.asarray(MEAN) / np.asarray(STD)).astype(np.float32)


def keep_memory() -> None:
    """Tell glibc to keep large blocks: fresh pages for every picture cost up to a third of the rate, for all alike."""
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_threshold = -1, -3
    libc.mallopt(m_mmap_threshold, 1 << 30)
    libc.mallopt(m_trim_threshold, 2_000_000_000)


def _timed(paths: Sequence[str], fill: Fill) -> Measure:
    """A round: every picture once, batch by batch, into the slot.

    The clock is the process's CPU time. A chain never waits, so on an idle core that is the time of the wall; on a
    shared one it leaves out what the core did for others.
    """
    files = [_read(path) for path in paths]
    slot = np.frombuffer(mmap.mmap(-1, BATCH * 3 * SIZE * SIZE * 4), np.float32).reshape(BATCH, 3, SIZE, SIZE)

    def measure() -> Measures:
        start = time.process_time()
        for begin in range(0, len(files), BATCH):
            batch = files[begin : begin + BATCH]
            fill(batch, slot[: len(batch)])
        return {"rate": len(files) / (time.process_time() - start)}

    return measure


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@contextmanager
def pillow(paths: Sequence[str]) -> Generator[Measure, None, None]:
    """Pillow for all of the picture (draft, bicubic of the box only), NumPy for the normalization."""
    keep_memory()

    def fill(batch: Sequence[bytes], out: Float32) -> None:
        for row, data in zip(out, batch, strict=True):
            with Image.open(io.BytesIO(data)) as image:
                image.draft("RGB", (SIZE, SIZE))
                small = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=_square(*image.size))
            for channel, band in enumerate(small.split()):  # 3 % faster than one transposed multiply
                np.multiply(np.asarray(band), _SCALE[channel], out=row[channel])
                row[channel] += _BIAS[channel]

    yield _timed(paths, fill)


def _square(width: int, height: int) -> tuple[float, float, float, float]:
    side = min(width, height)
    return ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)


@contextmanager
def best(paths: Sequence[str]) -> Generator[Measure, None, None]:
    """The fastest parts there are: simplejpeg, a hand-written AVX2 resizer (8 bits), XLA for the normalization."""
    keep_memory()
    decode: Any = importlib.import_module("simplejpeg")
    resize = _Avx2Resizer()
    normalize = _xla_normalize()

    def fill(batch: Sequence[bytes], out: Float32) -> None:
        for row, data in enumerate(batch):
            resize(row, _decode_rgbx(decode, data))
        out[:] = normalize(resize.pixels)[: len(batch)]

    yield _timed(paths, fill)


def _decode_rgbx(simplejpeg: Any, data: bytes) -> UInt8:
    """Scaled in the transform where a power of two fits: other scales have no SIMD code and are slower than none."""
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    floor = {"min_height": SIZE, "min_width": SIZE, "min_factor": 2} if min(width, height) >= 2 * SIZE else {}
    pixels: UInt8 = simplejpeg.decode_jpeg(data, "RGBX", **floor)
    return pixels


class _Avx2Resizer:
    """cykooz.resizer from a decoded picture into row ``i`` of ``pixels`` without a copy.

    Pillow wraps foreign memory without copying for a few modes only; CMYK is the one with four plain 8-bit channels.
    """

    def __init__(self) -> None:
        self._lib: Any = importlib.import_module("cykooz_resizer")
        self._resizer = self._lib.Resizer()
        extensions = self._lib.CpuExtensions
        self._resizer.cpu_extensions = extensions.avx2
        self._bicubic = self._lib.ResizeAlg.convolution(self._lib.FilterType.catmull_rom)
        canvas: Any = importlib.import_module("penstock.preprocess.kernel.canvas")
        self.pixels: UInt8 = canvas.aligned((BATCH, SIZE, SIZE, 4), np.uint8)
        self._rows = [_wrap(row) for row in self.pixels]
        for row in self._rows:
            row.readonly = 0

    def __call__(self, row: int, picture: UInt8) -> None:
        height, width = picture.shape[:2]
        left, top, right, bottom = _square(width, height)
        box = self._lib.CropBox(left, top, right - left, bottom - top)
        options = self._lib.ResizeOptions(self._bicubic, use_alpha=False, crop_box=box)
        self._resizer.resize_pil(_wrap(picture), self._rows[row], options)


def _wrap(pixels: UInt8) -> Image.Image:
    height, width = pixels.shape[:2]
    return Image.frombuffer("CMYK", (width, height), pixels, "raw", "CMYK", 0, 1)


def _xla_normalize() -> Callable[[UInt8], Float32]:
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    scale, bias = (values[:, None, None] for values in (_SCALE, _BIAS))

    def normalize(pixels: Any) -> Any:
        return pixels[..., :3].transpose(0, 3, 1, 2).astype(np.float32) * scale + bias

    compiled: Any = jax.jit(normalize)
    return lambda pixels: np.asarray(compiled(pixels))


@contextmanager
def penstock(paths: Sequence[str], decoder: str) -> Generator[Measure, None, None]:
    """What a penstock worker runs, with a worker's settings."""
    preprocessor = make_preprocessor(pixels("float32", decoder))

    def fill(batch: Sequence[bytes], out: Float32) -> None:
        for row, data in enumerate(batch):
            preprocessor.load(row, data)
        preprocessor.run(out, range(len(batch)))

    yield _timed(paths, fill)


def make_preprocessor(spec: PreprocessSpec) -> Preprocessor:
    """What runs in a worker, in a process set up as a worker's is."""
    from ..preprocess.worker.jax_runtime import prepare_jax
    from ..preprocess.worker.preprocessor import Preprocessor

    prepare_jax()
    return Preprocessor(spec, BATCH)
