"""What people hand to the Python API: odd inputs cost themselves only, wrong ones are told at once, none is kept."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penstock import (
    ConfigError,
    ImageEmbeddingPipeline,
    ServiceConfig,
    StreamingMultiprocessPreprocessor,
    embed,
    embed_images,
)
from penstock.engine.jobs.images.batches import Picture, Written
from penstock.engine.jobs.images.inputs import pictures_of
from penstock.engine.jobs.images.keyed_pictures import KeyedPictures
from penstock.engine.jobs.images.outcomes import FAILURES_KEPT, Outcomes
from penstock.engine.sources import FileSource, Item
from penstock.errors import ReadError
from penstock.sinks import MilvusSink, row_key

WAYS = ("insert_images", "insert_images_async", "insert_images_streaming")

GOOD = np.full((40, 40, 3), 90, np.uint8)


@pytest.fixture
def to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ImageEmbeddingPipeline]:
    """Makes pipelines into a folder, with an embedder that costs nothing."""
    (tmp_path / "means.py").write_text("def mean(pixels):\n    return pixels.mean(axis=(2, 3))\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(**settings: Any) -> ImageEmbeddingPipeline:
        small = {"workers": 1, "batch_size": 4, "insert_batch_size": 4, "image_size": 32}
        where = {"to": f"bulk:{tmp_path / 'rows'}", "embedder": "python:means:mean"}
        return ImageEmbeddingPipeline(ServiceConfig(**{**where, **small, **settings}))

    return make


# -- what is no collection of pictures --------------------------------------------------------------------------------

WRONG: list[tuple[Any, str]] = [
    ("a.jpg", r"takes a list of pictures, not one string: \w+\(\['a.jpg'\]\), or embed_images for a folder"),
    (Path("a.jpg"), r"not one path: \w+\(\['a.jpg'\]\), or embed_images for a folder"),
    (b"\xff\xd8", r"not one bytes: \w+\(\[picture\]\)"),
    (Image.new("RGB", (9, 9)), r"not one Image: \w+\(\[picture\]\)"),
    (GOOD, r"not one array of shape \(40, 40, 3\): \w+\(\[array\]\)"),
    (None, "not None"),
    (42, "not 42"),
]


@pytest.mark.parametrize(
    "face", [partial(embed_images, "pictures"), partial(embed, "pictures"), ImageEmbeddingPipeline]
)
def test_a_configuration_and_settings_are_not_mixed(face: Callable[..., object]) -> None:
    with pytest.raises(ConfigError, match=r"give a config or settings, not both \(config, and workers, slots\)"):
        face(config=ServiceConfig(), workers=1, slots=2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("inputs", "message"), WRONG)
def test_what_is_no_list_of_pictures_is_refused_with_what_to_write_instead(
    to: Callable[..., ImageEmbeddingPipeline], way: str, inputs: Any, message: str
) -> None:
    with to() as pipeline, pytest.raises(ConfigError, match=message) as caught:
        getattr(pipeline, way)(inputs)
    assert str(caught.value).startswith(f"{way} takes a list of pictures")


def test_a_path_is_the_same_picture_wherever_it_is_named(tmp_path: Path) -> None:
    """Behind a link ``..`` is where the link leads: in a list of pictures, in pairs with keys, and in a source."""
    (tmp_path / "far" / "deep").mkdir(parents=True)
    Image.fromarray(GOOD).save(tmp_path / "far" / "a.png")
    Image.fromarray(GOOD).save(tmp_path / "a.png")
    (tmp_path / "link").symlink_to("far/deep")
    named, meant = f"{tmp_path}/link/../a.png", str(tmp_path / "far" / "a.png")
    (item,) = FileSource(named)
    (picture,) = pictures_of([named], None, None, "insert_images")
    (keyed,) = KeyedPictures([("a", named)])
    assert isinstance(item, Item)
    assert isinstance(keyed, Item)
    assert item.key == picture.key == picture.source == keyed.path == meant
    assert picture.id == row_key(meant)


@pytest.mark.parametrize("inputs", [None, 42, b"\xff\xd8", GOOD])
def test_a_job_about_nothing_is_refused(tmp_path: Path, inputs: Any) -> None:
    with pytest.raises(ConfigError, match="embed_images takes a list of pictures"):
        embed_images(inputs, to=f"bulk:{tmp_path / 'rows'}")


def test_a_stream_of_nothing_is_refused() -> None:
    made = StreamingMultiprocessPreprocessor(num_workers=1)
    with pytest.raises(ConfigError, match=r"preprocess_stream takes a list of pictures, not one string"):
        next(made.preprocess_stream("a.jpg"))
    made.close()


def test_ids_that_are_no_list_are_refused(to: Callable[..., ImageEmbeddingPipeline]) -> None:
    with to() as pipeline, pytest.raises(ConfigError, match=r"ids: insert_images takes a list.*not 7"):
        pipeline.insert_images([GOOD], ids=7)  # type: ignore[arg-type]


# -- paths ------------------------------------------------------------------------------------------------------------


def test_a_store_may_be_named_by_a_path(tmp_path: Path) -> None:
    """Given at first, or assigned; it is kept as text, so that everything that reads it finds text."""
    config = ServiceConfig(to=tmp_path / "a.db")
    assert config.to == str(tmp_path / "a.db")
    assert str(tmp_path / "a.db") in repr(config)
    config.to = tmp_path / "b.db"  # type: ignore[assignment]
    assert config.to == str(tmp_path / "b.db")
    with ImageEmbeddingPipeline(to=tmp_path / "c.db") as pipeline:
        assert pipeline.dead_letters == str(tmp_path / "c.dead-letters.jsonl")
    assert MilvusSink(tmp_path / "a.db").uri == str(tmp_path / "a.db")
    with pytest.raises(ConfigError, match=r"^to: 4 is not allowed"):
        embed_images([GOOD], to=4)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_job_may_be_told_its_store_by_a_path(tmp_path: Path) -> None:
    Image.fromarray(GOOD).save(tmp_path / "a.png")
    report = embed_images(tmp_path / "a.png", to=tmp_path / "rows.db", workers=1, embedder="gist:32")
    assert report.accounting.written == 1
    assert (tmp_path / "rows.db").is_dir()


# -- one odd input among good ones ------------------------------------------------------------------------------------


class _Unwilling:
    def __fspath__(self) -> str:
        raise RuntimeError("not today")


ODD: dict[str, tuple[Any, str]] = {
    "nothing": (None, "DecodeError"),
    "a number": (42, "DecodeError"),
    "a list": ([1, 2], "DecodeError"),
    "a path that refuses": (_Unwilling(), "DecodeError"),
    "a lone surrogate": ("\ud800.jpg", "ReadError"),
    "a NUL": ("a\0.jpg", "ReadError"),
    "no file": ("/nowhere/a.jpg", "ReadError"),
    "a long name": ("/nowhere/" + "a" * 300, "ReadError"),
    "no bytes": (b"", "UnreadableError"),
    "no pixels": (np.zeros((0, 9, 3), np.uint8), "UnreadableError"),
    "no columns": (np.zeros((9, 0), np.float32), "UnreadableError"),
    "one sample": (np.array(3), "DecodeError"),
    "objects": (np.array([[None, 1], [2, 3]], object), "DecodeError"),
    "a structure": (np.zeros((9, 9), [("r", "u1"), ("g", "f4")]), "DecodeError"),
    "text": (np.full((9, 9), "pixel"), "DecodeError"),
    "empty text": (np.zeros((9, 9), "V0"), "DecodeError"),
    "dates": (np.zeros((9, 9), "M8[s]"), "DecodeError"),
    "complex": (np.zeros((9, 9), np.complex64), "DecodeError"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_an_odd_input_costs_only_itself(to: Callable[..., ImageEmbeddingPipeline], tmp_path: Path, way: str) -> None:
    """It is None among the ids and a failure that says what it was; its neighbours are rows."""
    odd = {**ODD, "a folder": (tmp_path, "ReadError"), "a cut file": (_cut(), "DecodeError")}
    inputs = [one for value, _ in odd.values() for one in (GOOD, value)]
    with to() as pipeline:
        ids = getattr(pipeline, way)(inputs, metadata=[{"n": n} for n in range(len(inputs))])
        failures = pipeline.failures
        assert pipeline.report is not None
        assert pipeline.report.accounting.dead == len(odd)
    assert [own is None for own in ids] == [False, True] * len(odd)
    assert [failure.position for failure in failures] == [*range(1, len(inputs), 2)]
    assert {name: failure.error for name, failure in zip(odd, failures, strict=True)} == {
        name: error for name, (_, error) in odd.items()
    }
    assert all(failure.key and failure.stage and failure.message for failure in failures)
    (folder,) = [failure for failure in failures if failure.key == str(tmp_path)]
    assert "embed_images" in folder.message


def _cut() -> Image.Image:
    """A picture whose file ends too early, opened and not read yet."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:2000]))


@pytest.mark.slow
def test_a_stream_goes_on_past_odd_inputs() -> None:
    """Each is among the errors of its batch."""
    inputs = [one for value, _ in ODD.values() for one in (GOOD, value)]
    with StreamingMultiprocessPreprocessor(num_workers=1, batch_size=8, image_size=32) as preprocessor:
        found = preprocessor.preprocess_batch_sync(inputs)
    assert found["ids"] == [*range(0, len(inputs), 2)]
    assert [(error["id"], error["error"]) for error in found["errors"]] == [
        (2 * number + 1, error) for number, (_, error) in enumerate(ODD.values())
    ]


@pytest.mark.slow
def test_the_failures_are_those_of_the_last_call(to: Callable[..., ImageEmbeddingPipeline]) -> None:
    with to() as pipeline:
        assert not pipeline.failures
        assert pipeline.insert_images(["/nowhere/a.jpg"], ids=[7]) == [None]
        assert [(one.position, one.key, one.stage, one.error) for one in pipeline.failures] == [
            (0, "7", "preprocess", "ReadError")
        ]
        assert pipeline.insert_images([GOOD], ids=[8]) == [8]
        assert not pipeline.failures


def test_failures_are_kept_in_bounded_memory() -> None:
    """The first thousand; ids say of all whether they are rows."""
    outcomes = Outcomes()
    for picture in outcomes.noting(Picture("k", n, "k.jpg", ordinal=n) for n in range(FAILURES_KEPT + 10)):
        if picture.ordinal != 5:
            outcomes.failed("preprocess", picture.failure(ReadError("https://me:secret@host/k.jpg is gone")))
    outcomes.written(Written([5]))
    assert len(outcomes.failures) == FAILURES_KEPT
    assert outcomes.ids == [None] * 5 + [5] + [None] * (FAILURES_KEPT + 4)
    assert "secret" not in outcomes.failures[0].message


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_no_input_is_kept_longer_than_it_takes_to_decode_it(
    to: Callable[..., ImageEmbeddingPipeline], way: str
) -> None:
    """Of a long generator of arrays only what channels, slots and batches hold is alive at once."""
    alive: set[int] = set()
    most = 0

    def arrays(count: int) -> Iterator[Any]:
        nonlocal most
        for number in range(count):
            array = np.full((32, 32, 3), number % 251, np.uint8)
            alive.add(number)
            weakref.finalize(array, alive.discard, number).atexit = False
            most = max(most, len(alive))
            yield array
            del array

    with to(slots=2, async_pipeline={"queue_maxsize": 8}) as pipeline:
        ids = getattr(pipeline, way)(arrays(400))
    assert len(ids) == 400
    assert None not in ids
    batches_at_once = 8 + 2 + 2 + 1  # the channel, the slots, and what passes from hand to hand; then one being made
    assert most <= 4 * batches_at_once
