"""From pictures to batches of pixels: decode, the JAX kernel, worker processes. See README.md here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .ancestor import warm_start
from .pool import PreprocessPool
from .presets import PRESETS, preset
from .protocol import Row, Source, Timings
from .slot import SlotBatch
from .spec import PIXELS_VERSION, PreprocessSpec

if TYPE_CHECKING:
    from .preprocessor import Preprocessor

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
    # The parent of a streaming job has no use for JAX: its import costs 0.4 s and 100 MB there.
    if name == "Preprocessor":
        from .preprocessor import Preprocessor

        return Preprocessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
