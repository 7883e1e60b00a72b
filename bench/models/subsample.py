"""512 of a picture's own values. As cheap as a model can be: what is measured with it is the way there.

Input ``PIXELS`` [3,224,224] of uint8 or float32, output ``VECTORS`` FP32 [512]. Parameter ``sleep_ms``: how long each
request takes besides.
"""

from __future__ import annotations

import json
import time
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSION = 512


def vectors(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """What the model answers: ``[n, 3, 224, 224]`` -> ``[n, 512]``."""
    return pixels.reshape(len(pixels), -1)[:, :: 3 * 224 * 224 // DIMENSION][:, :DIMENSION].astype(np.float32)


class TritonPythonModel:
    """Triton's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters."""
        self.pb: Any = import_module("triton_python_backend_utils")
        parameters = json.loads(args["model_config"])["parameters"]
        self.seconds = float(parameters.get("sleep_ms", {}).get("string_value", "0")) / 1000

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request."""
        return [self.answer(self.pb.get_input_tensor_by_name(r, "PIXELS").as_numpy()) for r in requests]

    def answer(self, pixels: NDArray[Any]) -> Any:
        """The vectors, after the time that was asked for."""
        if self.seconds:
            time.sleep(self.seconds)
        return self.pb.InferenceResponse([self.pb.Tensor("VECTORS", vectors(pixels))])
