"""``packed``: pictures in tars and tables against the same pictures as loose files, through the whole job."""

from __future__ import annotations

import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from .child import Measure, Measures
from .harness import Options, Variant, run_rounds
from .pictures import make_set
from .result import Goal, Result, tabulate
from .workload import WORKERS

_FILES = "loose files"
_GOALS = ("tar", "parquet")
_CASES = {"500x375": ("imagenet500", 512, ("arrow", "lance")), "2048x1536": ("camera2048", 128, ())}
"""Name -> set, pictures, and what is shown besides those that have a goal."""

_SHARDS = 4
_GROUP = 100
"""Rows of a row group: what ``datasets`` writes for pictures."""


def run(options: Options) -> Result:
    """Compare jobs with books into nothing, GIST included, after their start; their listing included.

    Raises:
        WorkerError: a variant broke down.
    """
    tables, skipped = [], dict[str, str]()
    for label, (name, n, others) in _CASES.items():
        paths = make_set(name, options.data, options.n or n)
        wanted = (*_GOALS, *others)
        packed = pack(paths, options.data / f"packed-{name}", wanted)
        sources = {_FILES: list(paths), **packed}
        skipped |= {kind: f"{_KINDS[kind].needs} is not installed" for kind in {*wanted} - packed.keys()}
        variants = [
            Variant(what, "packed:job", {"source": source, "n": len(paths)}) for what, source in sources.items()
        ]
        samples = run_rounds(variants, options.rounds or 5)
        goals = [Goal(what, 0.95, _FILES) for what in _GOALS if what in sources]
        title = f"{len(paths)} JPEG files {label} to vectors, GIST, {WORKERS} workers, with books"
        tables.append(tabulate(title, "pictures/s", samples.of("rate"), baseline=_FILES, goals=goals))
        title = "Of it the job's own process, start included"
        tables.append(tabulate(title, "ms of CPU a picture", samples.of("parent_ms"), baseline=_FILES))
        skipped |= samples.skipped
    return Result("packed", tuple(tables), skipped)


def pack(paths: Sequence[str], folder: Path, kinds: Sequence[str]) -> Mapping[str, str]:
    """The same pictures in several tars, and in several files of tables: a source each, by name of its kind."""
    folder.mkdir(parents=True, exist_ok=True)
    able = {name: _KINDS[name] for name in kinds if find_spec(_KINDS[name].needs)}
    for kind in able.values():
        for shard in range(_SHARDS):
            path = folder / f"{len(paths)}-{shard}.{kind.suffix}"
            if not path.exists():
                kind.write(path, paths[shard::_SHARDS])
    return {name: f"{folder}/{len(paths)}-{{0..{_SHARDS - 1}}}.{kind.suffix}" for name, kind in able.items()}


def _write_tar(path: Path, paths: Sequence[str]) -> None:
    with tarfile.open(path, "w") as tar:
        for each in paths:
            tar.add(each, Path(each).name)


def _table(paths: Sequence[str]) -> Any:
    import pyarrow as pa

    images = [{"bytes": Path(each).read_bytes(), "path": Path(each).name} for each in paths]
    return pa.table({"image": images})


def _write_parquet(path: Path, paths: Sequence[str]) -> None:
    import pyarrow.parquet as pq

    pq.write_table(_table(paths), path, row_group_size=_GROUP)


def _write_arrow(path: Path, paths: Sequence[str]) -> None:
    import pyarrow as pa

    table = _table(paths)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=_GROUP)


def _write_lance(path: Path, paths: Sequence[str]) -> None:
    import lance

    lance.write_dataset(_table(paths), str(path))


class _Kind(NamedTuple):
    suffix: str
    needs: str
    write: Callable[[Path, Sequence[str]], None]


_KINDS: Final = {
    "tar": _Kind("tar", "tarfile", _write_tar),
    "parquet": _Kind("parquet", "pyarrow", _write_parquet),
    "arrow": _Kind("arrow", "pyarrow", _write_arrow),
    "lance": _Kind("lance", "lance", _write_lance),
}


@contextmanager
def job(source: str | list[str], n: int) -> Generator[Measure, None, None]:
    """A whole job each round, with books of its own."""
    from ..engine.config.model import ServiceConfig
    from ..engine.jobs.images.embed import embed_images
    from ..engine.workers import warm_start

    def measure() -> Measures:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as place:
            cpu = time.process_time()
            config = ServiceConfig(to="null:", job=Path(place) / "job", embedder="gist", workers=WORKERS)
            report = embed_images(source, config=config)
            assert report.accounting.written == n
            seconds = report.seconds - report.extra["startup_seconds"]
            (waited,) = (stage.details["read"] for stage in report.stages if stage.name == "preprocess")
            parent = time.process_time() - cpu
            return {"rate": n / seconds, "parent_ms": parent / n * 1e3, "waited_ms": waited / n * 1e3}

    with warm_start():  # the start is not what is measured, and would take longer than all that is
        yield measure
