"""A ``.onnx`` file through ONNX Runtime, on the CPUs of this process, in the engine's thread pool.

What the model takes (element type, layout, size, batch) is read from the file and held against the pixels before a job
starts. What it cannot say is its normalization: that is the preset's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
from .onnx_session import (
    PIXEL_TYPES,
    Node,
    Session,
    model_digests,
    model_files,
    number,
    padded,
    pixel_input,
    start_session,
    threads_option,
)
from .pictures import check_pixels, geometry

_VECTOR_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True, slots=True)
class _Model:
    """A loaded model and what it takes; None where the file leaves it open."""

    session: Session
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
            self._fingerprint = digest("onnx", self._output or "", *model_digests("embedder", self._path))
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
        return 2 * sum(Path(file).stat().st_size for file in model_files("embedder", self._path)) + 32 * rows * pixels

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
            pixels = padded(view.pixels[start:stop], self._model.batch)
            view.embeddings[start:stop] = self._run(self._model, pixels)[: stop - start]
        return NONE_REFUSED

    def close(self) -> None:
        self._model = None  # ends ONNX Runtime's threads

    def _loaded(self) -> _Model:
        if self._model is None:
            session = start_session("embedder", self._path, self._threads or usable_cores(), EmbedderError)
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
    threads = threads_option(f"onnx:{rest}", options.get("threads"))
    return OnnxEmbedder(rest, options.get("output"), threads)


def _read(name: str, session: Session, output: str | None) -> _Model:
    node = pixel_input(name, session)
    where = f"{name}: input {node.name!r} has shape {node.shape}"
    layout, size = geometry(where, [number(d) for d in node.shape[1:]])
    chosen = _choose_output(name, session.get_outputs(), output)
    return _Model(session, node.name, chosen, PIXEL_TYPES[node.type], number(node.shape[0]), layout, size)


def _choose_output(name: str, nodes: Sequence[Node], wanted: str | None) -> str:
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
