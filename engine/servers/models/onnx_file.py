"""Triton model: a ``.onnx`` file through ONNX Runtime on the CPU. Copied into a repository as ``model.py``."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TritonPythonModel:
    """Triton's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file."""
        self._pb: Any = import_module("triton_python_backend_utils")
        config = json.loads(args["model_config"])
        self._input = config["input"][0]["name"]
        self._outputs = [output["name"] for output in config["output"]]
        # Rows the model takes at a time; 0: any number.
        self._batch = int(config["parameters"]["batch"]["string_value"])
        onnxruntime: Any = import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # more of them: more instances
        self._session: Any = onnxruntime.InferenceSession(
            config["parameters"]["file"]["string_value"], options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request."""
        return [self._answer(self._pb.get_input_tensor_by_name(r, self._input).as_numpy()) for r in requests]

    def _answer(self, pixels: NDArray[Any]) -> Any:
        step = self._batch or len(pixels)
        parts = [self._run(pixels[start : start + step]) for start in range(0, len(pixels), step)]
        arrays = [np.concatenate(output) for output in zip(*parts, strict=True)]
        tensors = [self._pb.Tensor(name, array) for name, array in zip(self._outputs, arrays, strict=True)]
        return self._pb.InferenceResponse(tensors)

    def _run(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        missing = self._batch - len(rows)
        if missing <= 0:
            return list(self._session.run(self._outputs, {self._input: rows}))
        full = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
        return [output[: len(rows)] for output in self._session.run(self._outputs, {self._input: full})]
