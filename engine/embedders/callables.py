"""A user's own function as an embedder: any Python callable in a thread, or a JAX function in the worker.

Both take one batch of pixels as the preprocessing specification makes it, ``[n, ...]``, and return ``[n, D]`` vectors.
If ``module:name`` is a class, it is made once without arguments and its instance is called: the place to load a model.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from ...errors import ConfigError, EmbedderError, EmbedError, PenstockError
from ...lazy import is_import_name
from ..core.policies import is_transient
from .base import (
    NONE_REFUSED,
    Array,
    Embedder,
    Options,
    Pixels,
    Refusals,
    Runs,
    View,
    bisect,
    digest,
    need_batch,
    need_vectors,
    no_options,
    spec_string,
)

Function = Callable[[Any], Any]


class _Callable(Embedder):
    """What both kinds share: a name to import, and a dimension that is known once it was tried."""

    def __init__(self, scheme: str, target: str, version: str | None = None) -> None:
        if not is_import_name(target):
            raise ConfigError(f"{scheme}:{target}: write {scheme}:module:callable, e.g. {scheme}:my_models:embed")
        self._module, _, self._attribute = target.partition(":")
        self._version = version
        super().__init__(f"{scheme}:{target}", spec_string(f"{scheme}:{target}", version=version))
        self._rows = 0
        self._dimension: int | None = None
        self._call: Function | None = None

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            raise EmbedderError(f"{self.name} has no known dimension before it is opened")
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """Of the ``version`` option if there is one, else of the text of the module's file.

        What the module imports or loads is not seen: give a version, and change it when the vectors change.
        """
        return digest(self.spec, b"" if self._version else self._source())

    def _source(self) -> bytes:
        """The module's file, found without importing it: fingerprints are asked for where JAX must not start."""
        loaded = getattr(sys.modules.get(self._module), "__file__", None)
        path = loaded or _origin(self._module)
        if path is None or not Path(path).is_file():
            raise ConfigError(
                f"{self.name}: module {self._module!r} has no file to tell its versions apart: is it on PYTHONPATH? "
                f"If it has none, add a version to the embedder and change it with the code: {self.name}?version=1"
            )
        return Path(path).read_bytes()

    def _load(self) -> Function:
        """Import the callable, and make it if it is a class."""
        try:
            found: Any = importlib.import_module(self._module)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{self.name}: {error}; is the folder of {self._module!r} on PYTHONPATH?") from error
        except Exception as error:
            raise EmbedderError(f"{self.name}: module {self._module!r} cannot be imported: {error!r}") from error
        for part in self._attribute.split("."):
            if not hasattr(found, part):
                raise ConfigError(f"{self.name}: module {self._module!r} has no {self._attribute!r}")
            found = getattr(found, part)
        if isinstance(found, type):
            try:
                found = cast("type[Any]", found)()
            except Exception as error:
                raise EmbedderError(f"{self.name}: the class cannot be made without arguments: {error!r}") from error
        if not callable(found):
            raise ConfigError(f"{self.name} is a {type(found).__name__}, which cannot be called")
        return cast("Function", found)

    def _opened(self) -> Function:
        if self._call is None:
            raise EmbedderError(f"{self.name}: embed() before open()")
        return self._call

    def close(self) -> None:
        self._call = None


class PythonEmbedder(_Callable):
    """``python:module:callable``: called in the engine's thread pool of this process with ``[n, ...]`` arrays.

    The callable gets a read-only view of the slot, valid during the call only. It is called from several threads at
    once if the embedding concurrency is more than one.
    """

    runs: ClassVar[Runs] = "thread"

    def __init__(self, target: str, version: str | None = None) -> None:
        super().__init__("python", target, version)

    def open(self, spec: Pixels, rows: int) -> None:
        """Import the callable and try it on two black pictures, to learn the dimension before the job starts."""
        call = self._load()
        count = min(rows, 2)
        probe = np.zeros((count, *spec.pixel_shape()), spec.pixel_dtype())
        try:
            vectors = self._vectors(call, probe)
        except EmbedError as error:
            raise EmbedderError(
                f"{error} (on black pictures of {list(probe.shape)} {probe.dtype}, as a trial)"
            ) from error
        self._dimension = vectors.shape[1]
        self._rows, self._call = rows, call

    def embed(self, view: View, rows: int) -> Refusals:
        return self._bisected(view, rows, lambda _: True)

    def attempt(self, view: View, rows: int) -> Refusals:
        return self._bisected(view, rows, lambda error: not is_transient(error))

    def _bisected(self, view: View, rows: int, is_theirs: Callable[[EmbedError], bool]) -> Refusals:
        call = self._opened()
        need_batch(self, view, rows, self._rows)

        def some(start: int, stop: int) -> None:
            vectors = self._vectors(call, view.pixels[start:stop])
            if vectors.shape[1] != self._dimension:
                raise EmbedderError(
                    f"{self.name} returned vectors of {vectors.shape[1]} floats, and {self._dimension} before"
                )
            view.embeddings[start:stop] = vectors

        return bisect(some, 0, rows, is_theirs) if rows else NONE_REFUSED

    def _vectors(self, call: Function, pixels: Array) -> Array:
        pixels = pixels.view()
        # A batch may be embedded again after a failure: pixels changed in place would give other vectors then.
        pixels.flags.writeable = False
        try:
            vectors: Array = np.asarray(call(pixels))
        except PenstockError:
            raise
        except Exception as error:
            raise EmbedError(f"{self.name} raised {type(error).__name__}: {error}") from error
        need_vectors(self.name, vectors.shape, len(pixels))
        if not (np.issubdtype(vectors.dtype, np.floating) or np.issubdtype(vectors.dtype, np.integer)):
            raise EmbedderError(f"{self.name} must return numbers, and returned {vectors.dtype}")
        return vectors


class JaxEmbedder(_Callable):
    """``jax:module:callable``: a JAX function of a whole batch, jitted, in the worker that made the pixels.

    It must treat each row by itself: rows of a batch that is not full hold old pixels.
    """

    runs: ClassVar[Runs] = "worker"

    def __init__(self, target: str, version: str | None = None) -> None:
        super().__init__("jax", target, version)

    def open(self, spec: Pixels, rows: int) -> None:
        """Trace the function, to learn the dimension; it compiles with the first batch."""
        import jax

        function = jax.jit(self._load())
        shape, dtype = (rows, *spec.pixel_shape()), spec.pixel_dtype()
        try:
            out: Any = jax.eval_shape(function, cast("Any", jax.ShapeDtypeStruct)(shape, dtype))
        except Exception as error:
            raise EmbedderError(
                f"{self.name} cannot be traced on {list(shape)} {dtype}: {type(error).__name__}: {error}"
            ) from error
        if not (hasattr(out, "shape") and np.issubdtype(out.dtype, np.number)):
            raise EmbedderError(f"{self.name} must return one array of numbers [n, D], and returned {out}")
        self._dimension = need_vectors(self.name, tuple(out.shape), rows)
        self._rows, self._call = rows, function

    def embed(self, view: View, rows: int) -> Refusals:
        call = self._opened()
        need_batch(self, view, rows, self._rows)
        try:
            vectors = np.asarray(call(view.pixels))
        except Exception as error:
            raise EmbedderError(f"{self.name} raised {type(error).__name__}: {error}") from error
        view.embeddings[:rows] = vectors[:rows]
        return NONE_REFUSED


def make_python(rest: str, options: Options) -> PythonEmbedder:
    """``python:module:callable[?version=...]``.

    Raises:
        ConfigError: it is not of that form, or has another option.
    """
    no_options(f"python:{rest}", options, ("version",))
    return PythonEmbedder(rest, options.get("version"))


def make_jax(rest: str, options: Options) -> JaxEmbedder:
    """``jax:module:callable[?version=...]``.

    Raises:
        ConfigError: it is not of that form, or has another option.
    """
    no_options(f"jax:{rest}", options, ("version",))
    return JaxEmbedder(rest, options.get("version"))


def _origin(module: str) -> str | None:
    """The file a module would be imported from, without importing it (its parent packages are)."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # ValueError: __main__ in an interactive session
        return None
    return found.origin if found else None
