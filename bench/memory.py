"""``memory``: the peak memory of the whole process tree must not depend on the number of pictures."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from .child import Measure, Measures
from .harness import Child, Options, Variant, run_rounds
from .pictures import link_set, make_set
from .result import Goal, Result, tabulate

_FILES = 500
_FEW, _MANY = 1_000, 20_000
_EVERY = 0.1
_MIB = 2**20


def run(options: Options) -> Result:
    """Embed a folder of 1,000 and one of 20,000 pictures (``--n``: another large one, and a twentieth of it).

    Raises:
        WorkerError: a variant broke down.
    """
    many = options.n or _MANY
    few = options.n // 20 or 1 if options.n else _FEW
    paths = make_set("imagenet500", options.data, min(_FILES, many))
    variants = [
        Variant(
            name, "memory:embed", {"folder": str(link_set(paths, options.data / f"links-{n}", n)), "n": n}, fresh=True
        )
        for name, n in (("few", few), ("many", many))
    ]
    with Child(
        variants[0]
    ) as filling:  # the compilation cache: a compiler's memory would be in one and not in the other
        filling.measure()
    samples = run_rounds(variants, options.rounds or 1)
    own = tabulate(
        f"Peak memory without the store's process: {few:,} and {many:,} JPEG files 500x375 into Milvus Lite, GIST",
        "MiB",
        samples.of("own"),
        baseline="few",
        goals=[Goal("many", 1.1, "few", at_most=True)],
    )
    total = tabulate("The same with the store's process", "MiB", samples.of("total"), baseline="few")
    return Result("memory", (own, total), samples.skipped)


@contextmanager
def embed(folder: str, n: int) -> Generator[Measure, None, None]:
    """The main job in a process of its own, watched from this one: within, the watch would wait for the job's GIL."""

    def measure() -> Measures:
        with Child(Variant("job", "memory:job", {"folder": folder, "n": n})) as child, Watch(child.pid) as watch:
            child.measure()
        return {"own": watch.own / _MIB, "total": watch.total / _MIB}

    yield measure


@contextmanager
def job(folder: str, n: int) -> Generator[Measure, None, None]:
    """The main job over a folder."""
    from ..engine.jobs.images.embed import embed_images

    def measure() -> Measures:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as store:
            report = embed_images(folder, to=str(Path(store) / "memory.db"), embedder="gist", workers=2)
        assert report.accounting.written == n
        return {}

    yield measure


class Watch:
    """Samples the memory of a process and all below it while the ``with`` block runs.

    PSS, which counts pages that processes share once in all, without that of files: pages of libraries are shared with
    whatever else runs on the machine just then (seen: 60 MiB less in all while another process had JAX loaded).

    Attributes:
        total: the most bytes of the tree at one time.
        own: the same without the processes of a store.
        sampled: set once there is a sample.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.total = 0
        self.own = 0
        self.sampled = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-bench-memory", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        import psutil

        top = psutil.Process(self._pid)
        while not self._end.wait(_EVERY):
            total = own = 0
            for process in (top, *top.children(recursive=True)):
                with suppress(psutil.Error, OSError):  # it has just left
                    size = held(process.pid)
                    total += size
                    own += 0 if "milvus" in " ".join(process.cmdline()) else size
            self.total, self.own = max(self.total, total), max(self.own, own)
            self.sampled.set()


def held(pid: int) -> int:
    """Bytes of a process's share in anonymous and shared memory.

    Raises:
        OSError: there is no such process, or it belongs to somebody else.
    """
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(line[1]) * 1024 for line in lines if line[0] in ("Pss_Anon:", "Pss_Shmem:"))
