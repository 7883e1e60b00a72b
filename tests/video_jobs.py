"""Small jobs on videos, and what they leave; a module that makes workers of videos come to their ends."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from penstock.engine import Report
from penstock.engine.config.videos import VideoConfig
from penstock.engine.jobs.common.source_factory import make_source
from penstock.engine.jobs.videos.run_videos import run_videos
from penstock.tests.clips import make_clip

SMALL: dict[str, Any] = {
    "workers": 1,
    "batch_size": 4,
    "slots": 2,
    "every": "100ms",
    "embedder": "gist:32",
    "progress": "none",
}
OWN = ["--workers", "1", "--batch-size", "4", "--slots", "2", "--every", "100ms", "--embedder", "gist:32"]

SABOTEUR = """
import os, signal, time
from penstock.preprocess.worker import videos

sample = videos.sample

def sabotaged(video, sampling, on_packet):
    name = os.path.basename(video.container.name)
    for frame in sample(video, sampling, on_packet):
        if frame.index == 5 and name.startswith("hangs"):
            time.sleep(1e6)
        if frame.index == 5 and name.startswith("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if frame.index in (2, 5, 6) and name.startswith("once") and first(f"{video.container.name[5:]}.{frame.index}"):
            os.kill(os.getpid(), signal.SIGKILL)
        yield frame

def first(mark):
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

videos.sample = sabotaged

class Embedder:  # for a whole job: jax:video_saboteur:Embedder
    def __call__(self, pixels):
        return pixels.reshape(len(pixels), -1)[:, :16].astype("float32")

class make:  # for a pool
    dimension = 0
    def __init__(self, argument): pass
    def open(self, spec, rows): pass
    def embed(self, view, rows): return {}
"""


def clips(folder: Path, count: int = 4, frames: int = 24) -> Path:
    """A folder of clips: 0.mp4 and so on, of so many frames at 30 a second, each longer than the one before."""
    folder.mkdir()
    for number in range(count):
        make_clip(folder / f"{number}.mp4", frames=frames + 6 * number)
    return folder


def mine(folder: Path | str, to: Path | str, **settings: Any) -> Report:
    """Run a small job."""
    chosen: dict[str, Any] = {**SMALL, "to": str(to), **settings}
    config = VideoConfig(**chosen)
    return run_videos(config, make_source(config, str(folder)))


def rows_of(data_set: Path) -> list[dict[str, Any]]:
    """The rows of a published data set in its order, vectors as digests."""
    import pyarrow.parquet as pq

    manifest = json.loads((data_set / "_SUCCESS.json").read_text())
    rows = [row for part in manifest["parts"] for row in pq.read_table(data_set / part["name"]).to_pylist()]
    for row in rows:
        row["vector"] = hashlib.sha256(repr(row["vector"]).encode()).hexdigest()
        del row["ordinal"]
    return rows


def table(path: Path) -> list[dict[str, Any]]:
    """A side table."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
