"""The whole: a thousand pictures through worker processes, shared memory, a real Triton and a real Milvus.

The same pictures also go through the embedder that runs inside of the workers: the vectors must be the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import penstock
from penstock.engine.servers import MilvusServer, TritonServer
from penstock.engine.servers.models import add_gist
from penstock.sinks import MilvusSink, row_key

PICTURES = 1000


@pytest.fixture
def pictures(tmp_path: Path, photos: list[Path]) -> Path:
    """A folder of small JPEG files, each another piece of a photograph, and three files that are no pictures."""
    folder = tmp_path / "pictures"
    draw = random.Random(0)
    sources = [Image.open(path).convert("RGB") for path in photos[:8]]
    for number in range(PICTURES):
        source = sources[number % len(sources)]
        width, height = draw.randrange(64, 128), draw.randrange(64, 128)
        left, top = draw.randrange(source.width - width), draw.randrange(source.height - height)
        path = folder / f"{number // 500:02}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        source.crop((left, top, left + width, top + height)).save(path, quality=85)
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.jpg").write_bytes((folder / "00" / "00000.jpg").read_bytes()[:400])
    (folder / "page.jpg").write_text("<html>404</html>")
    return folder


@pytest.mark.slow
def test_a_thousand_pictures_through_triton_into_milvus_are_the_rows_of_the_built_in_embedder(
    pictures: Path, tmp_path: Path, milvus: MilvusServer, own_server: Callable[[TritonServer], TritonServer]
) -> None:
    """As many rows as pictures, each with the vector that the embedder inside of the workers makes."""
    add_gist(tmp_path / "models")
    server = own_server(TritonServer(tmp_path / "models"))
    job = tmp_path / "job"
    report = penstock.embed_images(
        pictures, to=milvus.uri, collection="whole", embedder=f"triton+http://{server.http}/gist", job=job
    )
    books = report.accounting
    assert (books.read, books.written, books.dropped, books.dead) == (PICTURES + 3, PICTURES, 1, 2)
    assert len((job / "dead-letters.jsonl").read_text().splitlines()) == 2

    local = str(tmp_path / "local.db")
    assert penstock.embed_images(pictures, to=local, collection="whole", job=tmp_path / "job2").accounting == books
    keys = sorted(row_key(str(path)) for path in pictures.glob("*/*.jpg"))
    with MilvusSink(milvus.uri, "whole") as there, MilvusSink(local, "whole") as here:
        assert there.count() == here.count() == PICTURES
        for start in range(0, PICTURES, 500):
            chunk = keys[start : start + 500]
            theirs, ours = there.get(chunk, vectors=True), here.get(chunk, vectors=True)
            assert sorted(theirs) == sorted(ours) == chunk
            for key in chunk:
                # Vectors of length 1. Not bit for bit: the server has another release of JAX, with other FFTs.
                np.testing.assert_allclose(theirs[key]["vector"], ours[key]["vector"], atol=5e-5)
                assert theirs[key]["path"] == ours[key]["path"]
