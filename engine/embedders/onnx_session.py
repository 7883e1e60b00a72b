"""A ``.onnx`` file under ONNX Runtime, on the CPUs of this process: what all who run one have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from ...errors import ConfigError, PenstockError
from .base import Array

PIXEL_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
"""What an input of pixels may be: ONNX Runtime's name -> NumPy's."""

# Where exporters put weights that are too large for the file itself: torch.onnx ".data", Hugging Face Optimum "_data".
_WEIGHT_SUFFIXES = (".data", "_data")


class Node(Protocol):
    """An input or output as ONNX Runtime describes it; a dimension is a number, a name, or None."""

    name: str
    type: str
    shape: list[int | str | None]


class ModelMeta(Protocol):
    """What the exporter wrote into the file."""

    custom_metadata_map: Mapping[str, str]


class Session(Protocol):
    """What we use of ``onnxruntime.InferenceSession``."""

    def get_inputs(self) -> Sequence[Node]: ...
    def get_outputs(self) -> Sequence[Node]: ...
    def get_modelmeta(self) -> ModelMeta: ...
    def run(self, output_names: list[str], input_feed: dict[str, Array]) -> list[Array]: ...


def model_files(field: str, path: str) -> list[str]:
    """The file, and those with its weights beside it.

    Raises:
        ConfigError: there is no such file.
    """
    files = [need_file(field, path), *(path + suffix for suffix in _WEIGHT_SUFFIXES)]
    return [file for file in files if Path(file).is_file()]


def need_file(field: str, path: str) -> str:
    """The path again.

    Raises:
        ConfigError: there is no such file; `field` is the setting that names it.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{field} onnx: there is no file {path!r}")
    return path


def model_digests(field: str, path: str) -> list[bytes]:
    """Of the bytes of each of `model_files`: 16.

    Raises:
        ConfigError: there is no such file.
    """
    return [_digest(file) for file in model_files(field, path)]


def start_session(field: str, path: str, threads: int, refusal: type[PenstockError]) -> Session:
    """Load a model.

    Args:
        field: the setting that names it.
        path: of the file.
        threads: that compute one call.
        refusal: what is raised where ONNX Runtime cannot load it.

    Raises:
        ConfigError: there is no such file, or no ONNX Runtime.
    """
    need_file(field, path)
    # From 1.31 on it writes a device id and cache files at its import, unless it is told otherwise before.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"{field} onnx needs ONNX Runtime: pip install 'penstock[onnx]'") from error
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would otherwise busy-wait for the next batch, on the cores the preprocessing workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what is below fatal is raised, too
    try:
        # Named, because the default list may hold providers of a cloud.
        session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise refusal(f"ONNX Runtime cannot load {path!r}: {error}") from error
    return cast("Session", session)


def pixel_input(name: str, session: Session) -> Node:
    """The one input, which takes pictures.

    Raises:
        ConfigError: there are several, or it takes something else.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1:
        found = ", ".join(node.name for node in inputs)
        raise ConfigError(f"{name} must have one input, the pictures; it has {len(inputs)}: {found}")
    node = inputs[0]
    if node.type not in PIXEL_TYPES:
        raise ConfigError(f"{name}: input {node.name!r} is a {node.type}; it may be {', '.join(PIXEL_TYPES)}")
    if len(node.shape) != 4:
        raise ConfigError(
            f"{name}: input {node.name!r} has shape {node.shape}; pictures are [n, 3, H, W] or [n, H, W, 3]"
        )
    return node


def number(dimension: int | str | None) -> int | None:
    """A dimension that is fixed; None: open."""
    return dimension if isinstance(dimension, int) and dimension > 0 else None


def threads_option(where: str, text: str | None) -> int | None:
    """``threads=N`` of a spec.

    Raises:
        ConfigError: it is no positive integer.
    """
    if text is not None and not (text.isdecimal() and len(text) < 5 and int(text) > 0):
        raise ConfigError(f"{where}: threads={text!r} must be a positive integer")
    return int(text) if text else None


def padded(pixels: Array, batch: int | None) -> Array:
    """Exactly `batch` rows for a model that takes no other number; the last row again where some are missing."""
    if batch is None or len(pixels) == batch:
        return pixels
    return np.concatenate([pixels, np.repeat(pixels[-1:], batch - len(pixels), axis=0)])


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
