"""Test model: the means of 64 blocks of each picture through a fixed projection; and, where marked, trouble.

Input ``PIXELS`` [3,64,64] or [64,64,3] of uint8 or float32, output ``VECTORS`` FP32 [16]. Each row depends on its own
picture only. With the parameter ``marks`` the value of a picture's first pixel asks for something:

250 take 3 s, 251 the request fails, 252 a row of NaN, 253 vectors of a wrong length, 254 the process exits
"""

from __future__ import annotations

import json
import os
import time
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLOW, ERROR, NAN, SHAPE, EXIT = range(250, 255)
DIMENSION = 16


def vectors(pixels: NDArray[Any], layout: str = "NCHW") -> NDArray[np.float32]:
    """What the model answers: ``[n, 3, 64, 64]`` (or NHWC) -> ``[n, 16]``."""
    if layout == "NHWC":
        pixels = pixels.transpose(0, 3, 1, 2)
    blocks = pixels.reshape(-1, 3, 8, 8, 8, 8).astype(np.float64).mean((1, 3, 5)).reshape(-1, 64)
    angles = np.arange(64)[:, None] * (np.arange(DIMENSION)[None, :] + 1) * (np.pi / 37)
    # einsum without BLAS: each row is summed in the same order, whatever the number of rows.
    out: NDArray[np.float32] = np.einsum("nk,kd->nd", blocks, np.cos(angles), optimize=False).astype(np.float32)
    return out


class TritonPythonModel:
    """Triton's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters."""
        self.pb: Any = import_module("triton_python_backend_utils")
        parameters = json.loads(args["model_config"])["parameters"]
        self.layout = parameters.get("layout", {}).get("string_value", "NCHW")
        self.marks = "marks" in parameters

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request."""
        return [self.answer(self.pb.get_input_tensor_by_name(r, "PIXELS").as_numpy()) for r in requests]

    def answer(self, pixels: NDArray[Any]) -> Any:
        """The vectors, or what the marks ask for."""
        out = vectors(pixels, self.layout)
        marks = pixels[:, 0, 0, 0] if self.marks else np.zeros(0)
        if EXIT in marks:
            os._exit(3)
        if SLOW in marks:
            time.sleep(3)
        if ERROR in marks:
            return self.pb.InferenceResponse(error=self.pb.TritonError("asked to fail"))
        if SHAPE in marks:
            out = np.ascontiguousarray(out[:, :-1])
        out[: len(marks)][marks == NAN] = np.nan
        return self.pb.InferenceResponse([self.pb.Tensor("VECTORS", out)])
