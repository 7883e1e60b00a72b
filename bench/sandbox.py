"""``sandbox``: what confining the workers costs: pictures a second, CPU time, seconds to the first batch."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import psutil

from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate
from .workload import BATCH, WORKERS, pixels


def run(options: Options) -> Result:
    """Compare confined workers with free ones, in a new pool each round (fork server and compilation cache warm).

    Raises:
        WorkerError: a variant broke down.
    """
    paths = make_set("imagenet500", options.data, options.n or 1024)
    variants = [Variant(name, "sandbox:pool", {"paths": paths, "sandbox": name == "sandbox"}) for name in _NAMES]
    samples = run_rounds(variants, options.rounds or 9)
    rate = tabulate(
        f"JPEG files 500x375 to float32 slots, {WORKERS} workers",
        "pictures/s",
        samples.of("rate"),
        baseline="free",
        goals=[Goal("sandbox", 0.97, "free")],
    )
    cpu = tabulate("CPU time of the workers for a picture", "ms", samples.of("cpu_ms"), baseline="free")
    start = tabulate("Seconds to the first batch of a new pool", "s", samples.of("start"), baseline="free")
    return Result("sandbox", (rate, cpu, start), samples.skipped)


_NAMES = ("free", "sandbox")


@contextmanager
def pool(paths: Sequence[str], sandbox: bool) -> Generator[Measure, None, None]:
    """A new pool for each round; its first batch is the start, the others are the rate."""
    import gevent

    from ..engine.workers import PreprocessPool, warm_start

    spec = pixels("float32")
    batches = [paths[at : at + BATCH] for at in range(0, len(paths), BATCH)]

    def measure() -> Measures:
        begin = time.perf_counter()
        workers = PreprocessPool(spec, workers=WORKERS, batch_size=BATCH, sandbox=sandbox)

        def work(batch: Sequence[str]) -> None:
            workers.process(batch).release()

        with workers:
            workers.start_in_hub()
            work(batches[0])
            started, cpu = time.perf_counter(), _cpu(workers.pids)
            gevent.joinall([gevent.spawn(work, batch) for batch in batches], raise_error=True)
            seconds, cpu = time.perf_counter() - started, _cpu(workers.pids) - cpu
            workers.stop_in_hub()
        return {"rate": len(paths) / seconds, "cpu_ms": cpu / len(paths) * 1e3, "start": started - begin}

    with warm_start():
        yield measure


def _cpu(pids: Sequence[int]) -> float:
    """Seconds of CPU time these processes have had."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)
