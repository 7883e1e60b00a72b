"""What a worker process is started with. Known to the parent too, which must not import the worker's JAX for it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is started with (as JSON: nothing is pickled).

    Attributes:
        spec: the preprocessing specification, as JSON.
        rows: the most pictures in a batch.
        embedder: ``[factory, spec]``, e.g. ``["penstock.engine.embedders:parse_embedder", "gist"]``, for an embedder
            that runs in the worker; None where it runs elsewhere.
        threads: reads in flight ahead of the decoder when storage is slow; None for as many as suit it.
        item_timeout: seconds one picture may take before it is given up and the worker recycled.
        dimension: room for embeddings that are made elsewhere, in floats per row.
        path: the parent's ``sys.path`` now, where the user's own functions are found.
        device: the accelerator this worker owns; None for the CPU.
        sandbox: confine the process before it decodes anything; see ``sandbox``.
    """

    spec: dict[str, Any]
    rows: int
    embedder: tuple[str, str] | None = None
    threads: int | None = None
    item_timeout: float = 30.0
    device: int | None = None
    dimension: int = 0
    sandbox: bool = False
    path: list[str] = field(default_factory=lambda: list(sys.path))

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        return cls(**json.loads(text))
