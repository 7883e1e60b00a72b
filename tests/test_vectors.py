"""``penstock.embed``: vectors without a store, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import ConfigError, ImageEmbeddingPipeline, PipelineFailure, Report, embed
from penstock.errors import DecodeError, ReadError, SourceError
from penstock.tests.cut_short import failing, interrupted

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "image_size": 32, "embedder": "gist:32"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"to": "photos.db"}, "^to: embed.. hands the vectors to you"),
        ({"collection": "images"}, "^collection: "),
        ({"job": "folder"}, "^job: "),
        ({"embedder": "gits"}, "did you mean 'gist'"),
    ],
)
def test_what_is_about_a_store_is_refused_at_once(settings: dict[str, Any], words: str) -> None:
    """Not with the first ``next``."""
    with pytest.raises(ConfigError, match=words):
        embed(iter([]), **settings)


def test_a_source_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        embed(tmp_path / "nowhere")


def test_a_profile_is_no_setting_of_a_store() -> None:
    embed(iter([]), profile="high_throughput").close()


@pytest.mark.slow
def test_vectors_are_those_that_a_store_would_get(photos: list[Path], tmp_path: Path) -> None:
    """Each picture once, by its path, to be kept; what cannot be read is there with its error."""
    missing, broken = tmp_path / "missing.jpg", tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    found = dict(embed([*photos[:9], missing, broken], **SMALL))
    assert found.keys() == {str(path) for path in (*photos[:9], missing, broken)}
    assert isinstance(found[str(missing)], ReadError)
    error = found[str(broken)]
    assert isinstance(error, DecodeError)
    assert error.__notes__ == ["in the stage preprocess"]
    with ImageEmbeddingPipeline(to="null:", **SMALL) as pipeline:
        for path in photos[:9]:
            vector = found[str(path)]
            assert isinstance(vector, np.ndarray)
            assert vector.base is None
            np.testing.assert_allclose(vector, pipeline.embed(path), atol=1e-5)


@pytest.mark.slow
def test_pictures_of_an_iterable_are_known_by_their_keys(photos: list[Path]) -> None:
    """Whatever they are; one that is none of it fails alone."""
    pictures = [photos[0].read_bytes(), np.zeros((40, 40, 3), np.uint8), None]
    found = dict(embed(pictures, keys=["a", "b", "c"], **SMALL))
    assert {key: type(value).__name__ for key, value in found.items()} == {
        "a": "ndarray",
        "b": "ndarray",
        "c": "DecodeError",
    }


@pytest.mark.slow
def test_the_report_is_the_value_of_the_end(photos: list[Path]) -> None:
    reports: list[Report] = []

    def read() -> Iterator[Any]:
        reports.append((yield from embed(photos[:6], **SMALL)))

    assert len(list(read())) == 6
    (report,) = reports
    assert (report.accounting.read, report.accounting.written) == (6, 6)


@pytest.mark.slow
def test_no_more_is_read_than_is_in_hand(photos: list[Path]) -> None:
    """An endless source waits for its reader."""
    drawn = itertools.count()

    def source() -> Iterator[Path]:
        for path in itertools.cycle(photos):
            next(drawn)
            yield path

    stream = embed(source(), **SMALL)
    for _ in range(8):
        next(stream)
    stream.close()
    assert next(drawn) < 200


@pytest.mark.slow
def test_failures_alone_are_handed_over_too() -> None:
    """Of a source that never holds a good picture, without an end."""
    stream = embed(itertools.repeat(b"no picture"), keys=map(str, itertools.count()), **SMALL)
    keys = [next(stream)[0] for _ in range(500)]
    stream.close()
    assert len(set(keys)) == 500


# -- left early: `conftest` looks for slots in use after each test; of a worker that is left a socket is unclosed ------


def by_break(photos: list[Path]) -> None:
    for _ in embed(itertools.cycle(photos), **SMALL):
        break


def by_close(photos: list[Path]) -> None:
    stream = embed(itertools.cycle(photos), **SMALL)
    next(stream)
    stream.close()


def by_never_beginning(photos: list[Path]) -> None:
    embed(photos, **SMALL).close()


def by_an_exception(photos: list[Path]) -> None:
    class LeftError(Exception):
        pass

    with suppress(LeftError):
        for _ in embed(itertools.cycle(photos), **SMALL):
            raise LeftError


def by_a_failing_source(photos: list[Path]) -> None:
    with pytest.raises(PipelineFailure, match="source"):
        list(embed(failing(photos[:5]), **SMALL))


def by_ctrl_c(photos: list[Path]) -> None:
    with interrupted(photos[:8]) as source:
        list(embed(source, **SMALL))


@pytest.mark.slow
@pytest.mark.parametrize(
    "leave",
    [by_break, by_close, by_never_beginning, by_an_exception, by_a_failing_source, by_ctrl_c],
    ids=lambda leave: leave.__name__,
)
def test_a_stream_that_is_left_early_leaves_nothing_in_use(leave: Any, photos: list[Path]) -> None:
    leave(photos)
    assert len(list(embed(photos[:6], **SMALL))) == 6
