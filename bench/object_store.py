"""``object_store``: reading from an object store against the bare client, against local files, and listing it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import IO, Any, Final, cast

from ..engine.jobs.common.listing import entries_of
from ..engine.journal import Disk
from ..engine.journal.snapshot import write_snapshot
from ..engine.sources import Item, open_source
from ..fetch import Fetchers
from ..references import Reference
from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate
from .workload import WORKERS, peak_bytes

_THREADS: Final = 16
_GETS: Final = 400
_PICTURES: Final = 2048
_KEYS: Final = 1_000_000
_WAIT: Final = 0.05
_MOST: Final = 2**28

_BARE: Final = "obstore alone"
_OURS: Final = "penstock"
_FILES: Final = "local files"
_STORE: Final = "store, 50 ms a GET"


def run(options: Options) -> Result:
    """Read objects, embed ``--n`` pictures of 500x375, and list 1,000 times as many keys (a million by default).

    Raises:
        WorkerError: a variant broke down.
    """
    n = options.n or _PICTURES
    gets = min(n, _GETS)
    paths = make_set("imagenet500", options.data, n)
    keys = 1000 * options.n if options.n else _KEYS
    with canned(_objects(options.data, gets), options.data) as environment:
        reads = [
            Variant(_BARE, "object_store:bare", {"n": gets}, env=environment),
            Variant(_OURS, "object_store:read", {"n": gets}, env=environment),
        ]
        read = run_rounds(reads, 10 * (options.rounds or 5))  # a tenth of a second each
    with canned(paths, options.data) as environment:
        sources: Mapping[str, Any] = {_FILES: paths, _STORE: f"s3://wait-{_WAIT}/pictures"}
        jobs = [
            Variant(what, "packed:job", {"source": source, "n": n}, env=environment) for what, source in sources.items()
        ]
        whole = run_rounds(jobs, options.rounds or 5)
        lists = [Variant(_OURS, "object_store:listing", {"keys": keys}, fresh=True, env=environment)]
        listed = run_rounds(lists, min(options.rounds or 3, 3))
    what = f"{gets} objects of 50 to 350 kB, {_THREADS} threads, a server on the loopback"
    job = f"{n} JPEG files to vectors, GIST, {WORKERS} workers, with books"
    parent, listing_of = "Of it the job's own process, start included", f"Listing {keys:,} keys into a snapshot"
    memory = "Peak memory of that, interpreter included"
    near, near_files = Goal(_OURS, 0.9, _BARE), Goal(_STORE, 0.9, _FILES)
    cheap, small = Goal(_OURS, 0.35, at_most=True), Goal(_OURS, 100, at_most=True)
    tables = [
        tabulate(what, "GETs/s", read.of("rate"), baseline=_BARE, goals=[near]),
        tabulate("CPU of the process that reads", "s per 1,000", read.of("cpu"), baseline=_BARE, goals=[cheap]),
        tabulate(job, "pictures/s", whole.of("rate"), baseline=_FILES, goals=[near_files]),
        tabulate(parent, "ms of CPU a picture", whole.of("parent_ms"), baseline=_FILES),
        tabulate("Of it a worker waits for its pictures", "ms a picture", whole.of("waited_ms"), baseline=_FILES),
        tabulate(listing_of, "keys/s", listed.of("rate"), goals=[Goal(_OURS, 100_000)]),
        tabulate(memory, "MiB", listed.of("mib"), goals=[small]),
    ]
    return Result("object_store", tables, {**read.skipped, **whole.skipped, **listed.skipped})


def _objects(folder: Path, n: int) -> list[str]:
    """Files of noise, as large as pictures of a few megapixels; enough for all, whatever is in them."""
    place, random = folder / "objects", Random(0)
    place.mkdir(exist_ok=True)
    paths = [place / f"{number:03}" for number in range(n)]
    for path in paths:
        size = random.randrange(50_000, 350_000)
        if not path.exists() or path.stat().st_size != size:
            path.write_bytes(random.randbytes(size))
    return [str(path) for path in paths]


@contextmanager
def canned(paths: Sequence[str], folder: Path) -> Generator[dict[str, str]]:
    """A canned server, and the environment that leads to it."""
    files = folder / "canned.txt"
    files.write_text("\n".join(paths))
    with subprocess.Popen(
        [sys.executable, "-m", "penstock.bench.canned_s3", str(files)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        try:
            port = int(cast("IO[bytes]", server.stdout).readline())
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "canned",
                "AWS_SECRET_ACCESS_KEY": "canned",
            }
        finally:
            cast("IO[bytes]", server.stdin).close()


@contextmanager
def bare(n: int) -> Generator[Measure]:
    """obstore as it is, with its defaults but for the address; the checks of a careful loop."""
    from obstore.store import S3Store

    store = S3Store("now", client_options={"allow_http": True})
    found = {meta["path"]: meta["e_tag"] for page in store.list("pictures", chunk_size=1000) for meta in page}
    assert len(found) == n

    def get(key: str) -> int:
        return len(bytes(store.get(key, options={"if_match": found[key]}).bytes()))

    with ThreadPoolExecutor(_THREADS) as threads:
        yield lambda: _timed(lambda: sum(threads.map(get, found)), n)


@contextmanager
def read(n: int) -> Generator[Measure]:
    """As a worker reads, or the parent where workers are confined."""
    items = [entry for entry in open_source(["s3://now/pictures"]) if isinstance(entry, Item)]
    references = [item.reference for item in items if item.reference is not None]
    assert len(references) == n
    fetchers = Fetchers(_MOST)

    def get(reference: Reference) -> int:
        return len(fetchers.read(reference))

    with ThreadPoolExecutor(_THREADS) as threads:
        yield lambda: _timed(lambda: sum(threads.map(get, references)), n)


def _timed(work: Callable[[], int], n: int) -> Measures:
    begin, cpu = time.perf_counter(), time.process_time()
    assert work()
    return {"rate": n / (time.perf_counter() - begin), "cpu": (time.process_time() - cpu) / n * 1000}


@contextmanager
def listing(keys: int) -> Generator[Measure]:
    """A job's listing, in a new process."""
    source = open_source([f"s3://keys-{keys}"])

    def measure() -> Measures:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
            begin = time.perf_counter()
            snapshot = write_snapshot(Disk(), os.path.join(folder, "snapshot"), entries_of(source, lambda: False))
            seconds = time.perf_counter() - begin
            assert len(snapshot) == keys
            snapshot.close()
        return {"rate": keys / seconds, "mib": peak_bytes() / 2**20}

    yield measure
