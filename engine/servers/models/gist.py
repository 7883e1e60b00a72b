"""Triton model: penstock's own GIST, the code of this very package. Copied into a repository as ``model.py``.

It runs inside Triton's python stub, which is isolated: the folder of the package comes as a parameter.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# JAX compiles once, for batches of this size. Pictures are done one by one inside: larger ones are not faster
# (0.52 ms a picture in 8, 0.51 in 32), and a request of one picture would pay for all of them.
_ROWS = 8
_SIZE = 64


class TritonPythonModel:
    """Triton's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Import penstock and compile."""
        self._pb: Any = import_module("triton_python_backend_utils")
        _import_package(json.loads(args["model_config"])["parameters"]["package"]["string_value"])
        import_module("jax").config.update("jax_platforms", "cpu")
        self._view: Any = import_module("penstock.engine.embedders.base").ArrayView
        self._gist: Any = import_module("penstock.engine.embedders.gist").Gist()
        pixels = SimpleNamespace(size=_SIZE, dtype="uint8", layout="NCHW", mean=None, std=None, transform=None)
        self._gist.open(pixels, _ROWS)
        self._vectors(np.zeros((1, 3, _SIZE, _SIZE), np.uint8))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request."""
        return [self._answer(self._pb.get_input_tensor_by_name(r, "PIXELS").as_numpy()) for r in requests]

    def _answer(self, pixels: NDArray[np.uint8]) -> Any:
        return self._pb.InferenceResponse([self._pb.Tensor("VECTORS", self._vectors(pixels))])

    def _vectors(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Uint8 ``[n, 3, 64, 64]`` -> ``[n, 512]``."""
        vectors = np.empty((len(pixels), self._gist.dimension), np.float32)
        batch = self._view(np.zeros((_ROWS, *pixels.shape[1:]), np.uint8), np.empty((_ROWS, vectors.shape[1]), "f4"))
        for start in range(0, len(pixels), _ROWS):
            rows = pixels[start : start + _ROWS]
            batch.pixels[: len(rows)] = rows
            self._gist.embed(batch, len(rows))
            vectors[start : start + len(rows)] = batch.embeddings[: len(rows)]
        return vectors


def _import_package(folder: str) -> None:
    """``import penstock`` from this folder, whatever it is called."""
    spec = spec_from_file_location("penstock", f"{folder}/__init__.py", submodule_search_locations=[folder])
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no package in {folder}")
    module = sys.modules["penstock"] = module_from_spec(spec)
    spec.loader.exec_module(module)
