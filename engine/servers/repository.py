"""A Triton model repository, written model by model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import ConfigError


class Tensor(NamedTuple):
    """An input or output of a model: its name, Triton's name of the type (``UINT8``, ``FP32``...), dims of one row."""

    name: str
    dtype: str
    dims: Sequence[int]


def add_model(
    repository: Path,
    name: str,
    code: str | Path,
    *,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    max_batch_size: int = 64,
    instances: int = 1,
    version: int = 1,
    parameters: Mapping[str, str] | None = None,
    extra: str = "",
) -> Path:
    """Write a model for the python backend; returns its folder.

    Args:
        repository: made if it does not exist.
        name: of the model.
        code: the source of its ``model.py``, or the file to copy.
        inputs: what it takes.
        outputs: what it gives.
        max_batch_size: rows in one request; 0 for a model without a batch dimension.
        instances: how many requests it does at once, each in a process.
        version: the number of the version; others in the folder stay.
        parameters: strings the model finds in its configuration.
        extra: more lines for ``config.pbtxt``.
    """
    if not name or set(name) & set("/\\\0") or name.startswith("."):
        raise ConfigError(f"model name {name!r}: it is the name of a folder")
    folder = repository / name
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    model = folder / str(version) / "model.py"
    if isinstance(code, Path):
        shutil.copyfile(code, model)
    else:
        model.write_text(code)
    lines = [
        f"name: {json.dumps(name)}",
        'backend: "python"',
        f"max_batch_size: {max_batch_size}",
        *(f"input {_tensor(tensor)}" for tensor in inputs),
        *(f"output {_tensor(tensor)}" for tensor in outputs),
        f"instance_group {{ kind: KIND_CPU count: {instances} }}",
        *(
            f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}"
            for key, value in (parameters or {}).items()
        ),
        extra,
    ]
    (folder / "config.pbtxt").write_text("\n".join(lines) + "\n")
    return folder


def _tensor(tensor: Tensor) -> str:
    dims = ", ".join(str(dim) for dim in tensor.dims)
    return f"{{ name: {json.dumps(tensor.name)} data_type: TYPE_{tensor.dtype} dims: [{dims}] }}"
