"""Models for the python backend that come with penstock. The files beside this one run inside Triton, not here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....errors import ConfigError
from ..repository import Tensor, add_model

_HERE = Path(__file__).parent
_PACKAGE = _HERE.parents[2]
_MAX_BATCH = 256
_TYPES = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(uint8)": "UINT8",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
}


def add_gist(repository: Path, name: str = "gist", instances: int = 1) -> Path:
    """The built-in GIST: ``PIXELS`` uint8 ``[3, 64, 64]`` -> ``VECTORS`` FP32 ``[512]``; returns the model's folder."""
    return add_model(
        repository,
        name,
        _HERE / "gist.py",
        inputs=[Tensor("PIXELS", "UINT8", (3, 64, 64))],
        outputs=[Tensor("VECTORS", "FP32", (512,))],
        max_batch_size=_MAX_BATCH,
        instances=instances,
        # The second is for clients: what the in-process GIST wants besides what the shape of the input says.
        parameters={"package": str(_PACKAGE), "squash": "true"},
    )


def add_onnx(repository: Path, file: Path, name: str = "onnx", instances: int = 1) -> Path:
    """A ``.onnx`` file, read from where it is, under its own names, types and shapes; returns the model's folder.

    Raises:
        ConfigError: the file is not there, or not one for this: one input ``[n, ...]``, outputs ``[n, ...]``.
    """
    if not file.is_file():
        raise ConfigError(f"there is no file {str(file)!r}")
    session = _session(file)
    inputs, outputs = session.get_inputs(), [node for node in session.get_outputs() if len(node.shape) > 1]
    if len(inputs) != 1 or not outputs:
        raise ConfigError(f"{file.name}: a model must have one input, and an output [n, ...] of vectors")
    batch = inputs[0].shape[0]
    return add_model(
        repository,
        name,
        _HERE / "onnx_file.py",
        inputs=_tensors(file, inputs),
        outputs=_tensors(file, outputs),
        max_batch_size=_MAX_BATCH,
        instances=instances,
        parameters={"file": str(file.absolute()), "batch": str(batch if isinstance(batch, int) else 0)},
    )


def _session(file: Path) -> Any:
    # Its official builds report to Microsoft and keep an id of the device, from the import on, unless told before.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("ONNX Runtime is not installed: pip install 'penstock[onnx]'") from None
    try:
        return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConfigError(f"ONNX Runtime cannot load {str(file)!r}: {error}") from error


def _tensors(file: Path, nodes: Sequence[Any]) -> list[Tensor]:
    for node in nodes:
        if node.type not in _TYPES:
            raise ConfigError(f"{file.name}: {node.name!r} is a {node.type}; it may be {', '.join(_TYPES)}")
    return [
        Tensor(node.name, _TYPES[node.type], [dim if isinstance(dim, int) else -1 for dim in node.shape[1:]])
        for node in nodes
    ]
