"""``tee``: one job into two stores at once, against the same job into each of them alone."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate
from .workload import WORKERS

_STORES = {"Milvus Lite": ("lite",), "bulk": ("bulk",), "both": ("lite", "bulk")}


def run(options: Options) -> Result:
    """Compare whole jobs, GIST included, after their start.

    Raises:
        WorkerError: a variant broke down.
    """
    paths = make_set("imagenet500", options.data, options.n or 1500)
    variants = [Variant(name, "tee:job", {"paths": paths, "stores": stores}) for name, stores in _STORES.items()]
    samples = run_rounds(variants, options.rounds or 5)
    tables = (
        tabulate(
            f"{len(paths)} JPEG files 500x375 to rows, GIST, {WORKERS} workers",
            "pictures/s",
            samples.of("rate"),
            baseline="Milvus Lite",
            goals=[Goal("both", 0.9, "Milvus Lite"), Goal("both", 0.9, "bulk")],
        ),
    )
    return Result("tee", tables, samples.skipped)


@contextmanager
def job(paths: Sequence[str], stores: Sequence[str]) -> Generator[Measure, None, None]:
    """A whole job each round, into stores of its own; its rate is that of the time after the start."""
    from ..engine.config.model import ServiceConfig
    from ..engine.jobs.images.embed import embed_images

    def measure() -> Measures:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as place:
            to = [f"bulk:{place}/parts" if store == "bulk" else f"{place}/rows.db" for store in stores]
            report = embed_images(paths, config=ServiceConfig(to=to, embedder="gist", workers=WORKERS))
            assert report.accounting.written == len(paths)
            return {"rate": len(paths) / (report.seconds - report.extra["startup_seconds"])}

    yield measure
