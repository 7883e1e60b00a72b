"""The image job's faces: three ways in, the same rows; search finds them; nothing is lost on the way."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from penstock import ConfigError, ImageEmbeddingPipeline, PipelineFailure, ServiceConfig, embed_images
from penstock.engine.jobs.images.search import search_images
from penstock.errors import CollectionMismatchError, UnreadableError
from penstock.tests.segments import abandoned, left_since
from penstock.tests.waiting import DEADLINE

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = pytest.mark.slow

WAYS = ("insert_images", "insert_images_async", "insert_images_streaming")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One Milvus Lite store for the module; each test has its own collection."""
    return str(tmp_path_factory.mktemp("store") / "photos.db")


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    """After a pipeline is closed there is no process and no segment of it."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    segments = abandoned()
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not psutil.wait_procs(left, timeout=DEADLINE)[1]
    assert not left_since(segments)


def pipeline(store: str, **settings: Any) -> ImageEmbeddingPipeline:
    return ImageEmbeddingPipeline(ServiceConfig(**{"to": store, "workers": 2, "batch_size": 8, **settings}))


def vectors(store: str, collection: str) -> dict[str, Array]:
    """What the store holds, read with a plain client."""
    from pymilvus import MilvusClient

    client = MilvusClient(store)
    try:
        client.load_collection(collection)
        rows = client.query(collection, filter="", output_fields=["key", "vector"], limit=1000)
        return {row["key"]: np.array(row["vector"], np.float32) for row in rows}
    finally:
        client.close()
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_all()


def test_the_three_ways_return_the_same_ids_and_leave_the_same_vectors(store: str, photos: list[Path]) -> None:
    """Ids in input order, vectors equal, for paths, bytes, PIL images and arrays alike."""
    inputs = mixed_inputs(photos)
    with pipeline(store) as job:
        ids = {way: getattr(job, way)(inputs, collection_name=way) for way in WAYS}
    assert len(set(map(tuple, ids.values()))) == 1
    assert len(set(ids["insert_images"])) == len(inputs)
    found = {way: vectors(store, way) for way in WAYS}
    for way in WAYS[1:]:
        assert found[way].keys() == found["insert_images"].keys() == set(ids[way])
        for key, vector in found[way].items():
            np.testing.assert_allclose(vector, found["insert_images"][key], atol=1e-6)


def mixed_inputs(photos: list[Path]) -> list[Any]:
    """Pictures in every form the API takes."""
    inputs: list[Any] = [*map(str, photos[:9]), *photos[9:12]]
    inputs += [photo.read_bytes() for photo in photos[12:15]]
    inputs += [np.asarray(Image.open(photo)) for photo in photos[15:18]]
    inputs += [Image.open(photo) for photo in photos[18:20]]
    inputs += [Image.open(photos[20]).convert("P"), Image.open(photos[21]).convert("CMYK")]
    return inputs


@pytest.mark.parametrize("way", WAYS)
def test_ids_and_metadata_are_the_users_own(store: str, photos: list[Path], way: str) -> None:
    """Given ids come back as given; metadata lies beside the vector and is found by a search."""
    collection = f"own_{way}"
    with pipeline(store) as job:
        names = [f"photo/{n}" for n in range(10)]
        albums = [{"album": n % 3, "tags": ["a", "b"]} for n in range(10)]
        assert getattr(job, way)(photos[:10], names, albums, collection) == names
        (hit,) = job.search(photos[4], k=1, collection_name=collection)
    assert hit.key == "photo/4"
    assert hit.path == str(photos[4])
    assert hit.metadata == {"album": 1, "tags": ["a", "b"]}
    assert hit.score == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_used_is_none_among_the_ids_and_told(tmp_path: Path, photos: list[Path], way: str) -> None:
    """There is an id or None for each input; each failure is a dead letter with key, stage, error and message."""
    inputs = [photos[0], "/nowhere/at-all.jpg", photos[1], b"<html>no</html>", photos[2]]
    with pipeline(str(tmp_path / "p.db")) as job:
        assert getattr(job, way)(inputs, ids=list("abcde")) == ["a", None, "c", None, "e"]
        letters = [json.loads(line) for line in Path(job.dead_letters).read_text().splitlines()]
        assert job.report is not None
        assert (job.report.accounting.read, job.report.accounting.written, job.report.accounting.dead) == (5, 3, 2)
    assert Counter((letter["key"], letter["error"]) for letter in letters) == {
        ("b", "ReadError"): 1,
        ("d", "UnreadableError"): 1,
    }
    assert all(letter["stage"] and letter["message"] for letter in letters)


def test_doing_it_again_doubles_nothing(store: str, photos: list[Path]) -> None:
    """Rows are upserted by a key that the same picture has each time, by whatever way and name it comes."""
    with pipeline(store, collection="again") as job:
        first = job.insert_images_streaming(photos[:12])
        assert job.insert_images([os.path.relpath(photo) for photo in photos[:12]]) == first
        assert job.count() == 12


def test_one_call_embeds_a_folder_and_filters_what_is_no_picture(
    tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``embed_images``, of a folder in the home folder: rows, filtered and dead letters account for every file."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for number, photo in enumerate(photos[:20]):
        (folder / ("deep" if number % 2 else "") / photo.name).write_bytes(photo.read_bytes())
    (folder / "notes.txt").write_text("not a picture")
    (folder / "broken.jpg").write_bytes(photos[0].read_bytes()[:5000])
    (folder / "empty.png").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    report = embed_images("~/pictures", to=str(tmp_path / "p.db"), workers=2)
    books = report.accounting
    assert (books.read, books.written, books.filtered, books.dead, books.in_flight) == (23, 20, 1, 2, 0)
    assert report.bottleneck is not None
    assert {"source", "preprocess", "embed", "insert"} <= {stage.name for stage in report.stages}
    letters = (tmp_path / "p.dead-letters.jsonl").read_text().splitlines()
    assert {(Path(json.loads(line)["key"]).name, json.loads(line)["error"]) for line in letters} == {
        ("broken.jpg", "TruncatedError"),
        ("empty.png", "UnreadableError"),
    }


def test_a_spent_failure_budget_stops_the_job(tmp_path: Path, photos: list[Path]) -> None:
    """More failures than allowed: the job fails, with the causes and their stage."""
    with (
        pipeline(str(tmp_path / "p.db"), max_failures=1) as job,
        pytest.raises(PipelineFailure) as caught,
    ):
        job.insert_images_streaming([photos[0], b"no", b"nor this", b"nor that"])
    assert any(isinstance(error, UnreadableError) for error in caught.value.exceptions)


def test_another_embedders_collection_is_refused(
    store: str, photos: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Vectors of another dimension do not fit; the message says both dimensions."""
    (tmp_path / "users_other_model.py").write_text("def mean(pixels):\n    return pixels.mean(axis=(2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pipeline(store, collection="dims") as job:
        job.insert_images(photos[:1])
    with (
        pipeline(store, collection="dims", embedder="python:users_other_model:mean") as job,
        pytest.raises(CollectionMismatchError, match="512 dimensions, this job makes 3"),
    ):
        job.insert_images(photos[:1])


def test_a_callable_embeds_in_every_way(
    store: str, photos: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Any function of a batch of pixels: the same vectors in all three ways."""
    (tmp_path / "users_model.py").write_text("def mean(pixels):\n    return pixels.mean(axis=(2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pipeline(store, embedder="python:users_model:mean", image_size=32) as job:
        for way in WAYS:
            assert len(getattr(job, way)(photos[:9], collection_name=f"mean_{way}")) == 9
    found = [vectors(store, f"mean_{way}") for way in WAYS]
    for key, vector in found[0].items():
        assert vector.shape == (3,)
        np.testing.assert_allclose(found[1][key], vector, atol=1e-6)
        np.testing.assert_allclose(found[2][key], vector, atol=1e-6)


def test_a_pipeline_without_a_store_says_which_setting_is_missing() -> None:
    """``to`` is the one thing without a default."""
    with pytest.raises(ConfigError, match="to="):
        ImageEmbeddingPipeline()


def test_ids_must_be_as_many_as_the_inputs(tmp_path: Path, photos: list[Path]) -> None:
    """Said before anything is embedded."""
    with pipeline(str(tmp_path / "p.db")) as job, pytest.raises(ConfigError, match="3 inputs, 2 ids"):
        job.insert_images(photos[:3], ids=["a", "b"])


def test_a_picture_in_memory_has_a_key_by_its_content(store: str, photos: list[Path]) -> None:
    """The same bytes are the same row, other bytes another."""
    buffer = io.BytesIO()
    Image.open(photos[0]).save(buffer, "PNG")
    with pipeline(store, collection="content") as job:
        first = job.insert_images([photos[0].read_bytes(), buffer.getvalue()])
        assert len(set(first)) == 2
        assert job.insert_images([photos[0].read_bytes()]) == first[:1]
        assert job.count() == 2


def test_a_search_repeats_how_the_collection_was_made(store: str, photos: list[Path]) -> None:
    """No settings are needed to find a picture again; the collection knows its recipe."""
    with pipeline(store, collection="recipe", preset="clip", image_size=96) as job:
        job.insert_images(photos[:6])
    (hit,) = search_images(ServiceConfig(to=store, collection="recipe"), photos[2], k=1)
    assert hit.path == str(photos[2])
    assert hit.score == pytest.approx(1.0, abs=1e-3)


def test_vectors_made_otherwise_are_not_mixed(store: str, photos: list[Path]) -> None:
    """Another preprocessing of the same dimension is refused each time, and the message says what differs."""
    with pipeline(store, collection="mixed", image_size=64) as job:
        job.insert_images(photos[:1])
    with pipeline(store, collection="mixed", preset="clip") as job:
        for _ in range(2):
            with pytest.raises(CollectionMismatchError, match="size 64 there, 224 here"):
                job.insert_images(photos[:1])
            with pytest.raises(CollectionMismatchError, match="size 64 there, 224 here"):
                job.search(photos[0])


def test_a_stream_may_have_batches_of_its_own_size(
    store: str, photos: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also where the embedder works outside of the workers and is opened for one size."""
    (tmp_path / "users_sized_model.py").write_text("def mean(pixels):\n    return pixels.mean(axis=(2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pipeline(store, collection="sizes", embedder="python:users_sized_model:mean", image_size=32) as job:
        for size in (4, 8, 16):
            assert len(job.insert_images_streaming(photos[:9], batch_size=size)) == 9
        assert len(job.insert_images(photos[:9])) == 9
        assert job.count() == 9


def test_reports_go_to_the_file_and_to_the_jobs_folder_also_of_a_failed_job(tmp_path: Path, photos: list[Path]) -> None:
    """Both hold the same, and account for what was read before the failure."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(b"junk")
    with pytest.raises(PipelineFailure):
        embed_images(
            folder,
            to=str(tmp_path / "p.db"),
            workers=1,
            max_failures=0,
            job=tmp_path / "job",
            report=tmp_path / "r.json",
        )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report == json.loads((tmp_path / "job" / "report.json").read_text())
    assert report["accounting"]["dead"] == 5
    assert len((tmp_path / "job" / "dead-letters.jsonl").read_text().splitlines()) == 5


@pytest.mark.slow
def test_a_picture_with_an_empty_id_fails_alone(tmp_path: Path, photos: list[Path]) -> None:
    """An id that says nothing is no name for a dead letter: the path is, and its neighbours are rows."""
    with ImageEmbeddingPipeline(to=str(tmp_path / "x.db"), workers=1, job=tmp_path / "job") as pipeline:
        (tmp_path / "job").mkdir()
        ids = pipeline.insert_images([str(photos[0]), b"no picture", str(photos[1])], ids=["a", "", "b"])
        assert ids == ["a", None, "b"]
        assert pipeline.report is not None
        assert pipeline.report.accounting.dead == 1
    (line,) = (tmp_path / "job" / "dead-letters.jsonl").read_text().splitlines()
    assert '"key": "content:' in line
