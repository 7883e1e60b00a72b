"""JAX in the user's own process: on the CPU, with the workers' compilation cache, and theirs where they use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.images import search as images
from penstock.errors import SharedMemoryFullError
from penstock.tests.waiting import DEADLINE

pytestmark = pytest.mark.slow

EMBED = """
import sys, numpy as np, penstock
with penstock.ImageEmbeddingPipeline(to="unused.db", batch_size=4) as pipeline:
    vector = pipeline.embed(sys.argv[1])
"""


def python(code: str, *arguments: str, **env: str) -> str:
    """What a fresh process prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**kept, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_jax_that_nobody_else_uses_is_confined_to_the_cpu(photos: list[Path], tmp_path: Path) -> None:
    """No other platform is even tried: that would take three quarters of an accelerator's memory."""
    code = (
        EMBED
        + """
import jax
from jax._src import xla_bridge
print(jax.config.jax_platforms, *xla_bridge._backends)
"""
    )
    assert python(code, str(photos[0]), XDG_CACHE_HOME=str(tmp_path)) == "cpu cpu"


def test_jax_that_the_user_has_imported_stays_as_it_is(photos: list[Path], tmp_path: Path) -> None:
    """Our own calls are sent to the CPU, whatever device is theirs by default."""
    code = (
        """
import jax
before = dict(jax.config.values)
"""
        + EMBED
        + """
from penstock.preprocess.worker.jax_runtime import on_cpu
with on_cpu():
    print(jax.numpy.ones(1).devices() == {jax.devices("cpu")[0]} and jax.config.jax_default_device.platform)
changed = {name for name, value in jax.config.values.items() if before.get(name) != value}
print(jax.config.jax_default_device, changed)
"""
    )
    assert python(code, str(photos[0]), XDG_CACHE_HOME=str(tmp_path)) == "cpu\nNone set()"


def test_a_second_process_compiles_nothing_anew(photos: list[Path], tmp_path: Path) -> None:
    """What the first one has compiled is found, in the cache that the workers use, too."""
    counted = """
import jax
compiled = []
jax.monitoring.register_event_listener(lambda event, **_: compiled.append(event))
"""
    # The listener is there before the first compilation, and JAX is ours all the same.
    code = EMBED.replace(
        "with penstock",
        "from penstock.preprocess.worker.jax_runtime import on_cpu; on_cpu()" + counted + "with penstock",
        1,
    )
    code += """
print(sum("cache_hits" in event for event in compiled), sum("cache_misses" in event for event in compiled))
"""
    _, missed = map(int, python(code, str(photos[0]), XDG_CACHE_HOME=str(tmp_path)).split())
    found, missed_again = map(int, python(code, str(photos[0]), XDG_CACHE_HOME=str(tmp_path)).split())
    assert missed > 0
    assert (found, missed_again) == (missed, 0)


def test_vectors_of_this_process_and_of_workers_are_equal(photos: list[Path], tmp_path: Path) -> None:
    """To the bit: a picture finds itself."""
    code = """
import sys, numpy as np, penstock
with penstock.ImageEmbeddingPipeline(to=sys.argv[1] + "/a.db", batch_size=4, workers=1) as pipeline:
    pipeline.insert_images_streaming(sys.argv[2:])
    for path in sys.argv[2:]:
        (hit,) = pipeline.search(path, k=1)
        print(hit.path == path and round(hit.score, 6))
"""
    said = python(code, str(tmp_path), *map(str, photos[:3]), XDG_CACHE_HOME=str(tmp_path))
    assert said.split() == ["1.0"] * 3


def test_a_search_needs_no_jax_here_and_compiles_nothing_that_the_job_has_compiled(
    photos: list[Path], tmp_path: Path
) -> None:
    """The query goes through a worker like the job's, which finds its programs; a broken one says what it is."""
    code = """
import os, sys, penstock
from pathlib import Path
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.images.search import search_images
from penstock.errors import ItemError
folder = Path(sys.argv[1])
kept = lambda: {path.name for path in folder.rglob("*-cache")}
to = str(folder / "a.db")
penstock.embed_images(sys.argv[2:], to=to, workers=1)
before = kept()
(hit,) = search_images(ServiceConfig(to=to), sys.argv[2], 1)
print(hit.path == sys.argv[2], round(hit.score, 5), len(before) > 0, kept() == before, "jax" in sys.modules)
(folder / "broken.jpg").write_bytes(b"no picture")
try:
    search_images(ServiceConfig(to=to), folder / "broken.jpg", 1)
except ItemError as error:
    print(type(error).__name__)
"""
    said = python(code, str(tmp_path), *map(str, photos[:3]), XDG_CACHE_HOME=str(tmp_path))
    assert said.splitlines() == ["True 1.0 True True False", "UnreadableError"]


def test_a_search_without_room_in_shared_memory_is_made_in_this_process(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture needs no ring."""
    to = str(tmp_path / "a.db")
    penstock.embed_images([photos[0]], to=to, workers=1)

    def full(*_: object, **__: object) -> None:
        raise SharedMemoryFullError("no room")

    monkeypatch.setattr(images, "query_vector", full)
    (hit,) = images.search_images(ServiceConfig(to=to), photos[0], 1)
    assert hit.path == str(photos[0])
