"""A ``.onnx`` file through ONNX Runtime, on the CPUs of this process, in the engine's thread pool.

What the model takes (element type, layout, size, batch) is read from the file and held against the pixels before a job
starts. What it cannot say is its normalization: that is the preset's business.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from ...errors import ConfigError, EmbedderError
from ..machine.resources import usable_cores
from .base import (
    NONE_REFUSED,
    Array,
    Embedder,
    Options,
    PixelPreferences,
    Pixels,
    Refusals,
    Runs,
    View,
    digest,
    need_batch,
    need_vectors,
    no_options,
    spec_string,
)
from .pictures import check_pixels, geometry

_PIXEL_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
_VECTOR_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)")

# Where exporters put weights that are too large for the file itself: torch.onnx ".data", Hugging Face Optimum "_data".
_WEIGHT_SUFFIXES = (".data", "_data")


class _Node(Protocol):
    """An input or output as ONNX Runtime describes it; a dimension is a number, a name, or None."""

    name: str
    type: str
    shape: list[int | str | None]


class _Session(Protocol):
    """What we use of ``onnxruntime.InferenceSession``."""

    def get_inputs(self) -> Sequence[_Node]: ...
    def get_outputs(self) -> Sequence[_Node]: ...
    def run(self, output_names: list[str], input_feed: dict[str, Array]) -> list[Array]: ...


@dataclass(frozen=True, slots=True)
class _Model:
    """A loaded model and what it takes; None where the file leaves it open."""

    session: _Session
    input: str
    output: str
    dtype: str
    batch: int | None
    layout: str | None
    size: int | None


class OnnxEmbedder(Embedder):
    """``onnx:FILE.onnx``, with options ``output`` (the name of an output) and ``threads`` (default: one per CPU).

    The model has one image input ``[n, 3, H, W]`` or ``[n, H, W, 3]`` of float32, float16 or uint8, ``n`` fixed or not.
    The vectors are an output ``[n, D]`` or ``[n, D, 1, 1]``; which one need be said only if there are several.
    """

    runs: ClassVar[Runs] = "thread"

    def __init__(self, path: str, output: str | None = None, threads: int | None = None) -> None:
        super().__init__(f"onnx:{Path(path).name}", spec_string(f"onnx:{path}", output=output, threads=threads))
        self._path, self._output, self._threads = path, output, threads
        self._model: _Model | None = None
        self._fingerprint: str | None = None
        self._dimension: int | None = None
        self._rows = 0

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            raise EmbedderError(f"{self.name} has no known dimension before it is opened")
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Of the bytes of the file and of weights kept beside it, and of the chosen output."""
        if self._fingerprint is None:
            self._fingerprint = digest("onnx", self._output or "", *map(_file_digest, self._files()))
        return self._fingerprint

    @property
    def wants(self) -> PixelPreferences:
        """What the model fixes. Loads it.

        Raises:
            ConfigError: the file is missing, or the model is not one for pictures.
            EmbedderError: ONNX Runtime cannot load it.
        """
        model = self._loaded()
        return PixelPreferences(size=model.size, dtype=model.dtype, layout=model.layout)

    def memory(self, spec: Pixels, rows: int) -> int:
        """An estimate: the weights twice, because ONNX Runtime packs them anew, and 32 times a batch of pixels."""
        pixels = math.prod(spec.pixel_shape()) * spec.pixel_dtype().itemsize
        return 2 * sum(Path(file).stat().st_size for file in self._files()) + 32 * rows * pixels

    def check(self, spec: Pixels) -> None:
        """Hold the pixels against the model's input. Loads the model."""
        model = self._loaded()
        check_pixels(self.name, spec, model.dtype, model.layout, model.size)

    def open(self, spec: Pixels, rows: int) -> None:
        """Load the model and try it on black pictures, to learn the dimension before the job starts."""
        self.check(spec)
        model = self._loaded()
        count = model.batch or min(rows, 2)
        probe = np.zeros((count, *spec.pixel_shape()), spec.pixel_dtype())
        self._dimension = self._run(model, probe).shape[1]
        self._rows = rows

    def embed(self, view: View, rows: int) -> Refusals:
        if self._model is None or self._dimension is None:
            raise EmbedderError(f"{self.name}: embed() before open()")
        need_batch(self, view, rows, self._rows)
        step = self._model.batch or max(rows, 1)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            pixels = _padded(view.pixels[start:stop], self._model.batch)
            view.embeddings[start:stop] = self._run(self._model, pixels)[: stop - start]
        return NONE_REFUSED

    def close(self) -> None:
        self._model = None  # ends ONNX Runtime's threads

    def _files(self) -> list[str]:
        files = [_existing(self._path), *(self._path + suffix for suffix in _WEIGHT_SUFFIXES)]
        return [file for file in files if Path(file).is_file()]

    def _loaded(self) -> _Model:
        if self._model is None:
            session = _start(_existing(self._path), self._threads or usable_cores())
            self._model = _read(self.name, session, self._output)
        return self._model

    def _run(self, model: _Model, pixels: Array) -> Array:
        try:
            vectors = model.session.run([model.output], {model.input: pixels})[0]
        except Exception as error:
            raise EmbedderError(f"{self.name} failed on {list(pixels.shape)} {pixels.dtype} pixels: {error}") from error
        if vectors.ndim == 4 and vectors.shape[2:] == (1, 1):
            vectors = vectors[:, :, 0, 0]
        need_vectors(f"{self.name} (output {model.output!r})", vectors.shape, len(pixels))
        return vectors


def make_onnx(rest: str, options: Options) -> OnnxEmbedder:
    """``onnx:FILE.onnx[?output=NAME&threads=N]``.

    Raises:
        ConfigError: the file's name or an option is not one.
    """
    no_options(f"onnx:{rest}", options, ("output", "threads"))
    if not rest:
        raise ConfigError("embedder onnx: say which file, e.g. onnx:model.onnx")
    threads = options.get("threads")
    if threads is not None and not (threads.isdecimal() and len(threads) < 5 and int(threads) > 0):
        raise ConfigError(f"onnx:{rest}: threads={threads!r} must be a positive integer")
    return OnnxEmbedder(rest, options.get("output"), int(threads) if threads else None)


def _existing(path: str) -> str:
    if not Path(path).is_file():
        raise ConfigError(f"embedder onnx: there is no file {path!r}")
    return path


def _file_digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def _start(path: str, threads: int) -> _Session:
    # From 1.31 on it writes a device id and cache files at its import, unless it is told otherwise before.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("embedder onnx needs ONNX Runtime: pip install 'penstock[onnx]'") from error
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would otherwise busy-wait for the next batch, on the cores the preprocessing workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        # Named, because the default list may hold providers of a cloud.
        session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EmbedderError(f"ONNX Runtime cannot load {path!r}: {error}") from error
    return cast("_Session", session)


def _read(name: str, session: _Session, output: str | None) -> _Model:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        found = ", ".join(node.name for node in inputs)
        raise ConfigError(f"{name} must have one input, the pictures; it has {len(inputs)}: {found}")
    node = inputs[0]
    if node.type not in _PIXEL_TYPES:
        raise ConfigError(f"{name}: input {node.name!r} is a {node.type}; it may be {', '.join(_PIXEL_TYPES)}")
    layout, size = _geometry(name, node)
    chosen = _choose_output(name, session.get_outputs(), output)
    return _Model(session, node.name, chosen, _PIXEL_TYPES[node.type], _number(node.shape[0]), layout, size)


def _geometry(name: str, node: _Node) -> tuple[str | None, int | None]:
    """Layout and side of the square, as far as the input's shape tells."""
    if len(node.shape) != 4:
        raise ConfigError(
            f"{name}: input {node.name!r} has shape {node.shape}; pictures are [n, 3, H, W] or [n, H, W, 3]"
        )
    where = f"{name}: input {node.name!r} has shape {node.shape}"
    return geometry(where, [_number(d) for d in node.shape[1:]])


def _choose_output(name: str, nodes: Sequence[_Node], wanted: str | None) -> str:
    """The output that holds the vectors: the one asked for, else the only one of a vector's shape."""
    names = [node.name for node in nodes]
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"{name} has no output {wanted!r}; it has {', '.join(names)}")
        return wanted
    fitting = [n.name for n in nodes if n.type in _VECTOR_TYPES and (len(n.shape) == 2 or n.shape[2:] == [1, 1])]
    if len(fitting) != 1:
        found = ", ".join(f"{node.name} {node.type}{node.shape}" for node in nodes)
        raise ConfigError(
            f"{name}: say which output holds the [n, D] vectors, as in ?output={names[0]}; it has {found}"
        )
    return fitting[0]


def _number(dimension: int | str | None) -> int | None:
    return dimension if isinstance(dimension, int) and dimension > 0 else None


def _padded(pixels: Array, batch: int | None) -> Array:
    """Exactly `batch` rows for a model that takes no other number; the last row again where some are missing."""
    if batch is None or len(pixels) == batch:
        return pixels
    return np.concatenate([pixels, np.repeat(pixels[-1:], batch - len(pixels), axis=0)])
