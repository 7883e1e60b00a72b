"""Whole jobs through a real Triton that misbehaves: what becomes of the pictures.

=====================================================  =====================================================
what happens                                           the job
=====================================================  =====================================================
the server is killed in the middle and started again   io, registers anew; every picture is a row
one of two servers is killed for good                  goes on with the other; every picture is a row
the model refuses one picture                          that one is a dead letter, its neighbours are rows
the model answers NaN for one picture                  that one is a dead letter, its neighbours are rows
the server refuses shared memory                       the same rows, bit for bit
=====================================================  =====================================================
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import penstock
from penstock import Report
from penstock.engine.servers import TritonServer
from penstock.sinks import MilvusSink, row_key

pytestmark = pytest.mark.slow

MakeTriton = Callable[..., TritonServer]
PICTURES = 96


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of one grey each, below the values that the test models take for marks."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        _grey(folder / f"{number:03}.png", number)
    return folder


def _grey(path: Path, value: int) -> None:
    Image.new("RGB", (64, 64), (value, value, value)).save(path)


def embed(pictures: Path, store: Path, *servers: str, model: str, options: str = "", **settings: Any) -> Report:
    """The job, in small batches so that many are on their way."""
    hosts = ",".join(servers)
    spec = f"triton+http://{hosts}/{model}{options}"
    return penstock.embed_images(
        pictures, to=str(store), embedder=spec, batch_size=4, job=store.with_suffix(".job"), **settings
    )


def vectors(store: Path, pictures: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """The stored vector of each picture, by file name."""
    names = {row_key(str(path)): path.name for path in pictures.iterdir()}
    with MilvusSink(str(store), "images") as sink:
        rows = sink.get(list(names), vectors=True)
        assert sink.count() == len(rows)
    return {names[key]: row["vector"] for key, row in rows.items()}


class WhenSome:
    """Does something once, when so many pictures are in the store."""

    interval = 0.05

    def __init__(self, written: int, what: Callable[[], object]) -> None:
        self._written, self._what = written, what
        self.thread: threading.Thread | None = None

    def update(self, report: Report) -> None:
        """Told the figures by the job."""
        if self.thread is None and report.accounting.written >= self._written:
            self.thread = threading.Thread(target=self._what)
            self.thread.start()


def test_a_server_that_is_killed_and_started_again_costs_nothing(
    make_triton: MakeTriton, pictures: Path, tmp_path: Path
) -> None:
    """Its registrations are gone and requests were under way: all of it is done again."""
    server = make_triton("sleeper", sleep_ms={"sleeper": "150"})
    watcher = WhenSome(8, server.restart)
    report = embed(pictures, tmp_path / "a.db", server.http, model="sleeper", insert_batch_size=8, watcher=watcher)
    assert watcher.thread is not None
    watcher.thread.join()
    assert report.accounting.written == PICTURES
    assert len(vectors(tmp_path / "a.db", pictures)) == PICTURES


def test_one_of_two_servers_may_die(make_triton: MakeTriton, pictures: Path, tmp_path: Path) -> None:
    """The other takes its work."""
    first = make_triton("sleeper", sleep_ms={"sleeper": "150"})
    second = make_triton("sleeper", sleep_ms={"sleeper": "150"})
    watcher = WhenSome(8, first.kill)
    report = embed(
        pictures, tmp_path / "b.db", first.http, second.http, model="sleeper", insert_batch_size=8, watcher=watcher
    )
    assert watcher.thread is not None
    watcher.thread.join()
    assert report.accounting.written == PICTURES


@pytest.mark.parametrize(("mark", "said"), [(251, "asked to fail"), (252, "NaN")], ids=["refused", "nan"])
def test_a_picture_that_the_model_does_not_take_is_a_dead_letter_alone(
    mark: int, said: str, triton: TritonServer, pictures: Path, tmp_path: Path
) -> None:
    """The other pictures of its batch are rows, with their own vectors."""
    (tmp_path / "whole").mkdir()
    whole = embed(pictures, tmp_path / "whole" / "c.db", triton.http, model="mean_u8")
    assert whole.accounting.written == PICTURES
    good = vectors(tmp_path / "whole" / "c.db", pictures)
    _grey(pictures / "041.png", mark)
    report = embed(pictures, tmp_path / "c.db", triton.http, model="faulty")
    assert (report.accounting.written, report.accounting.dead) == (PICTURES - 1, 1)
    (letter,) = map(json.loads, (tmp_path / "c.job" / "dead-letters.jsonl").read_text().splitlines())
    assert letter["key"].endswith("041.png")
    assert (letter["stage"], letter["error"]) == ("embed", "EmbedError")
    assert said in letter["message"]
    found = vectors(tmp_path / "c.db", pictures)
    assert sorted(found) == sorted(good.keys() - {"041.png"})
    for name, vector in found.items():
        np.testing.assert_array_equal(vector, good[name])


def test_a_server_without_shared_memory_makes_the_same_rows(
    triton: TritonServer, make_triton: MakeTriton, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Bit for bit, with one warning that says what to switch on."""
    (tmp_path / "there").mkdir()
    embed(pictures, tmp_path / "there" / "d.db", triton.http, model="mean_f32")
    assert "--allow-client-shm" not in caplog.text
    refusing = make_triton("mean_f32", restrict_shm=True)
    (tmp_path / "here").mkdir()
    embed(pictures, tmp_path / "here" / "d.db", refusing.http, model="mean_f32")
    assert caplog.text.count("--allow-client-shm") == 1
    theirs, ours = vectors(tmp_path / "there" / "d.db", pictures), vectors(tmp_path / "here" / "d.db", pictures)
    assert theirs.keys() == ours.keys()
    for name, vector in theirs.items():
        np.testing.assert_array_equal(vector, ours[name])
