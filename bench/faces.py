"""``faces``: the three ways to insert the same pictures with the same embedder into a fresh Milvus Lite store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate

_CASES = {"warm": "in a pipeline that has worked before", "new": "starting and compiling included"}
_FACES = ("insert_images", "insert_images_async", "insert_images_streaming")


def run(options: Options) -> Result:
    """Compare the faces on web-sized pictures with GIST.

    Raises:
        WorkerError: a variant broke down.
    """
    paths = make_set("imagenet500", options.data, options.n or 2000)
    variants = [Variant(face, "faces:insert", {"paths": paths, "face": face}) for face in _FACES]
    samples = run_rounds(variants, options.rounds or 3)
    tables = tuple(
        tabulate(
            f"{len(paths)} JPEG files 500x375 to rows in Milvus Lite, GIST, 2 workers where there are any; {text}",
            "pictures/s",
            samples.of(case),
            baseline="insert_images",
            goals=(
                Goal("insert_images_async", 1.0, "insert_images"),
                Goal("insert_images_streaming", 1.8, "insert_images"),
            ),
        )
        for case, text in _CASES.items()
    )
    return Result("faces", tables, samples.skipped)


@contextmanager
def insert(paths: Sequence[str], face: str) -> Generator[Measure, None, None]:
    """One face; each round has a pipeline and a store of its own, which are used twice."""
    from ..engine.config.model import ServiceConfig
    from ..engine.jobs.images.pipeline import ImageEmbeddingPipeline

    def rate(pipeline: ImageEmbeddingPipeline, collection: str) -> float:
        start = time.perf_counter()
        ids = getattr(pipeline, face)(list(paths), collection_name=collection)
        seconds = time.perf_counter() - start
        assert None not in ids
        return len(ids) / seconds

    def measure() -> Measures:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
            config = ServiceConfig(to=str(Path(folder) / "faces.db"), embedder="gist", workers=2, batch_size=32)
            with ImageEmbeddingPipeline(config) as pipeline:
                return {case: rate(pipeline, case) for case in ("new", "warm")}

    yield measure
