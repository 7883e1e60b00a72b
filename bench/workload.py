"""What the benchmarks have in common: how many workers, and which pixels in which batches.

Imports nothing: of a process whose start is measured it is a part.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..preprocess.spec import PreprocessSpec

WORKERS: Final = 2
SIZE: Final = 224
BATCH: Final = 32
MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)


def pixels(dtype: str, decoder: str = "pillow") -> PreprocessSpec:
    """The specification of what every variant makes; uint8 leaves the normalization to the model's server.

    Raises:
        ModuleNotFoundError: the decoder is not installed: better left out than measured with Pillow under its name.
    """
    from ..preprocess.spec import PreprocessSpec

    if decoder != "pillow":
        importlib.import_module(decoder)
    normalization = {"mean": MEAN, "std": STD} if dtype != "uint8" else {}
    return PreprocessSpec.from_json({"size": SIZE, "resize": SIZE, "dtype": dtype, "decoder": decoder, **normalization})


def peak_bytes() -> int:
    """The most that this process ever held (not ``ru_maxrss``, which a child inherits)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
