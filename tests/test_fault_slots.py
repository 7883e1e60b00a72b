"""A worker is killed at each step of the slot protocol. Whatever the step, every batch arrives whole, once.

=====================  =================================================================
killed                 what the parent has to find out
=====================  =================================================================
before, after begin    that the slot holds nothing of this generation
while decoding         which picture it was (it is not to blame before its third death)
around the kernel      that the pixels are half there
around commit          that the slot is whole, and nobody has said so
around the answer      that it was said, or not: the last moment
=====================  =================================================================
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import pytest

from penstock.engine.workers import PreprocessPool
from penstock.preprocess import Preprocessor, preset
from penstock.shm import SlotState
from penstock.tests.waiting import DEADLINE

pytestmark = [pytest.mark.slow, pytest.mark.kills]

SPEC = preset("clip", size=64)
BATCH, WORKERS, SLOTS = 4, 2, 2

STEPS = {
    "before begin": ("Ring", "begin", "before"),
    "after begin": ("Ring", "begin", "after"),
    "while decoding": ("Preprocessor", "load", "before"),
    "before the kernel": ("Preprocessor", "run", "before"),
    "after the kernel": ("Preprocessor", "run", "after"),
    "before commit": ("Ring", "commit", "before"),
    "after commit": ("Ring", "commit", "after"),
    "before the answer": ("worker", "encode_done", "after"),
    "after the answer": ("Ring", "begin", "before next"),
}

SABOTEUR = """
import os, signal
from penstock.preprocess.worker import worker
from penstock.preprocess.worker.preprocessor import Preprocessor
from penstock.shm import Ring

class Nothing:
    dimension = 0
    def open(self, spec, rows): pass
    def embed(self, view, rows): return {}

def make(argument):
    owner, name, when, number, mark = argument.split("|")
    owner = {"Ring": Ring, "Preprocessor": Preprocessor, "worker": worker}[owner]
    whole, passes = getattr(owner, name), 0

    def die():
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return  # it has happened
        os.kill(os.getpid(), signal.SIGKILL)

    def patched(*given):
        nonlocal passes
        passes += 1
        now = passes == int(number) + (when == "before next")
        if now and when != "after":
            die()
        result = whole(*given)
        if now and when == "after":
            die()
        return result

    setattr(owner, name, patched)
    return Nothing()
"""


@pytest.fixture
def saboteur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module that the workers can import."""
    name = f"saboteur_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SABOTEUR))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def truth(photos: list[Path]) -> np.ndarray[Any, Any]:
    """The pixels of the first four photographs, made in this process."""
    local = Preprocessor(SPEC, BATCH)
    for row, path in enumerate(photos[:BATCH]):
        local.load(row, str(path))
    out = np.zeros((BATCH, *SPEC.pixel_shape()), SPEC.pixel_dtype())
    local.run(out, range(BATCH))
    return out


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_any_step_costs_nothing(
    step: str, number: int, saboteur: str, truth: np.ndarray[Any, Any], photos: list[Path], tmp_path: Path
) -> None:
    """At its first and at its second pass: all batches arrive, with the right pixels, and no slot is lost."""
    owner, name, when = STEPS[step]
    mark = tmp_path / "killed"
    passes = number * BATCH if name == "load" else number
    argument = "|".join([owner, name, when, str(passes), str(mark)])
    names = [str(path) for path in photos[:BATCH]]
    embedder = (f"{saboteur}:make", argument)
    pool = PreprocessPool(SPEC, workers=WORKERS, batch_size=BATCH, slots=SLOTS, embedder=embedder)
    with pool:
        pool.start_in_hub()
        jobs = [gevent.spawn(_pixels, pool, names) for _ in range(8)]
        try:
            for job in jobs:
                np.testing.assert_allclose(job.get(timeout=DEADLINE), truth, atol=1e-5)
            assert mark.exists(), "nobody was killed: the test has tested nothing"
            assert pool.states[SlotState.FREE] == WORKERS * SLOTS
        finally:
            gevent.killall(jobs)
            pool.stop_in_hub()


def _pixels(pool: PreprocessPool, names: list[str]) -> np.ndarray[Any, Any]:
    slot = pool.process(names)
    assert [row.position for row in slot.rows] == list(range(BATCH))
    found = slot.pixels.copy()
    slot.check()
    slot.release()
    return found
