"""From pictures to batches of pixels: decode, the JAX kernel, what a worker process runs. See README.md here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_exports

if TYPE_CHECKING:
    from .presets import PRESETS, preset
    from .spec import PIXELS_VERSION, PreprocessSpec
    from .worker.preprocessor import Preprocessor
    from .worker.protocol import Row, Source, Timings
else:
    # The parent of a streaming job has no use for JAX (0.4 s and 100 MB there), and starts the workers' fork server
    # before it imports anything large, so that both go on at once.
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "worker.preprocessor": ("Preprocessor",),
            "presets": ("PRESETS", "preset"),
            "worker.protocol": ("Row", "Source", "Timings"),
            "spec": ("PIXELS_VERSION", "PreprocessSpec"),
        },
    )

__all__ = [
    "PIXELS_VERSION",
    "PRESETS",
    "PreprocessSpec",
    "Preprocessor",
    "Row",
    "Source",
    "Timings",
    "preset",
]
