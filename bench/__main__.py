"""``python -m penstock.bench NAME``: runs one benchmark and prints what it found."""

from __future__ import annotations

import importlib
import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from ..errors import PenstockError
from .harness import Options
from .result import Result, render

BENCHMARKS = {
    "chain": "one core: JPEG bytes to a float32 batch in a slot; Pillow + NumPy, penstock, the best chain at any price",
    "gist": "one core: the built-in embedder, by working size",
    "stream": "two workers: files on disk to batches in the consumer; penstock against a tuned PyTorch DataLoader",
    "engine": "what the engine costs: bare workers against workers under the engine; CPU of the parent per batch",
    "scaling": "two workers against one",
    "calls": "a call of a function in a worker process: CPU of the parent, and rate, against the standard library's",
    "faces": "insert_images, _async and _streaming into Milvus Lite, same embedder (GIST)",
    "tee": "one job into two stores at once, against the same job into each of them alone",
    "packed": "pictures in tars and tables, against the same pictures as loose files",
    "object_store": "pictures in an object store: GETs against the bare client, jobs against local files, listing",
    "triton": "a real Triton server: shared memory against HTTP bodies; how busy a model is kept",
    "milvus": "rows into real Milvus servers: a bare pymilvus loop at its best setting against the insert stage",
    "resume": "a job that is killed at random moments and resumed, against one that nobody disturbs",
    "recovery": "a worker is killed, again and again: how soon it is noticed, how soon the rate is what it was",
    "journal": "the books of a job: resuming one of 10^8 entries, recording batches, listing the source",
    "paths": "a list, a tuple, a generator of paths: what each costs and holds, against a folder",
    "pages": "scanned pages: what the first pass and the resampling cost, how exact they are on drawn text",
    "volumes": "the two lanes of a volume worker; a job over three volumes that is killed again and again",
    "video_frames": "frames of a video at a step, keyframes, scenes: one core; decoding all, seeking, a bare loop",
    "videos": "mining videos: its cost beside sampling alone, two workers against one, 20 kills",
    "dedup": "near-duplicates: what rules keep and find, large collections in pairs and in buckets",
    "frames": "one core: what looking at a frame of a video costs: statistics, hashes, bars, boxes",
    "sandbox": "what confining the workers costs (--sandbox)",
    "startup": "seconds to the first batch: everything cold, warm compilation cache, warm pool",
    "soak": "a million tiny pictures through the whole job: memory, descriptors and threads do not grow",
    "memory": "peak memory of the process tree for 1,000 and for 20,000 pictures",
}
"""What can be measured. Each name is a module with one function ``run(options) -> Result``."""

_EPILOG = f"""\b
NAME is all, or one of
{chr(10).join(f"  {name:<8} {text}" for name, text in BENCHMARKS.items())}

\b
Examples:
  python -m penstock.bench chain
  python -m penstock.bench stream --n 512 --rounds 7 --data bench-pictures
  python -m penstock.bench faces --json faces.json

Variants run in turn, round by round, each in a process of its own; ratios are taken within a round. On a busy machine
look at the ratios, not at the rates, and add rounds. Variants whose library is missing are left out and named
(pip install 'penstock[bench]' has them all).
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("name", type=click.Choice((*BENCHMARKS, "all")), metavar="NAME")
@click.option("--n", type=click.IntRange(1), help="Pictures a round.  [default: the benchmark's own]")
@click.option(
    "--rounds", type=click.IntRange(1), help="Measured rounds, after one that is thrown away.  [default: its own]"
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to keep the generated pictures in, for the next run.  [default: a temporary one]",
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure there too."
)
def main(name: str, n: int | None, rounds: int | None, data: Path | None, json_file: Path | None) -> None:
    """Measure one thing against its strongest alternative, in one run on this machine."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") if data is None else nullcontext(str(data)) as folder:
        found: list[Result] = []
        for each in BENCHMARKS if name == "all" else (name,):
            try:
                found.append(run(each, Options(Path(folder).resolve(), n, rounds)))
            except PenstockError as error:
                raise click.ClickException(str(error)) from error
            click.echo(render(found[-1]))
    if json_file is not None:
        results = [result.to_json() for result in found]
        json_file.write_text(json.dumps(results if name == "all" else results[0], indent=1) + "\n")


def run(name: str, options: Options) -> Result:
    """Run one of ``BENCHMARKS``; its module is imported only now."""
    module: Any = importlib.import_module(f"penstock.bench.{name}")
    result: Result = module.run(options)
    return result


if __name__ == "__main__":
    main(prog_name="python -m penstock.bench")
