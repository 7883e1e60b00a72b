"""``chain``: one worker's work on one core, against Pillow alone and against the best chain at any price."""

from __future__ import annotations

from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate

_SETS = {"imagenet500": ("JPEG 500x375", 256), "camera2048": ("JPEG 2048x1536", 64)}


def run(options: Options) -> Result:
    """Compare the chains on web-sized and camera-sized pictures.

    Raises:
        WorkerError: a variant broke down.
    """
    variants = [variant for name in _SETS for variant in _variants(name, options)]
    samples = run_rounds(variants, options.rounds or 7)
    tables = tuple(
        tabulate(
            f"{label} bytes to a float32 224 batch in a slot, one core",
            "pictures per second of CPU",
            _short(samples.of("rate", prefix=name)),
            baseline="pillow+numpy",
            goals=_goals(name),
        )
        for name, (label, _) in _SETS.items()
    )
    return Result("chain", tables, samples.skipped)


def _variants(name: str, options: Options) -> list[Variant]:
    paths = make_set(name, options.data, options.n or _SETS[name][1])
    chains = {
        "pillow+numpy": ("chains:pillow", {}),
        "penstock": ("chains:penstock", {"decoder": "pillow"}),
        "penstock+simplejpeg": ("chains:penstock", {"decoder": "simplejpeg"}),
        "best": ("chains:best", {}),
    }
    return [
        Variant(f"{name} {chain}", target, {"paths": paths, **args}, one_core=True)
        for chain, (target, args) in chains.items()
    ]


def _short(samples: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name.partition(" ")[2]: values for name, values in samples.items()}


def _goals(name: str) -> tuple[Goal, ...]:
    if name != "imagenet500":
        return ()
    return (
        Goal("penstock", 1.5, "pillow+numpy"),
        Goal("penstock", 0.66, "best"),
        Goal("penstock+simplejpeg", 0.76, "best"),
    )
