"""From pictures to batches of pixels: decode, the JAX kernel, worker processes. See README.md here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ancestor import warm_start
    from .pool import PreprocessPool
    from .preprocessor import Preprocessor
    from .presets import PRESETS, preset
    from .protocol import Row, Source, Timings
    from .slot import SlotBatch
    from .spec import PIXELS_VERSION, PreprocessSpec

_HOMES = {
    "PIXELS_VERSION": "spec",
    "PRESETS": "presets",
    "PreprocessPool": "pool",
    "PreprocessSpec": "spec",
    "Preprocessor": "preprocessor",
    "Row": "protocol",
    "SlotBatch": "slot",
    "Source": "protocol",
    "Timings": "protocol",
    "preset": "presets",
    "warm_start": "ancestor",
}

__all__ = [
    "PIXELS_VERSION",
    "PRESETS",
    "PreprocessPool",
    "PreprocessSpec",
    "Preprocessor",
    "Row",
    "SlotBatch",
    "Source",
    "Timings",
    "preset",
    "warm_start",
]


def __getattr__(name: str) -> Any:
    # Imported when first used. The parent of a streaming job has no use for JAX (0.4 s and 100 MB there), and starts
    # the workers' ancestor before it imports anything large, so that both go on at once.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
