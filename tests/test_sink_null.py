"""``null:``: a job without a store, for benchmarks and dry runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import ImageEmbeddingPipeline, embed_images
from penstock.engine.cli import main
from penstock.errors import ConfigError
from penstock.sinks import SinkOptions, make_sink

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "embedder": "gist:32"}


@pytest.mark.parametrize(("uri", "said"), [("null:x", "nothing follows null:"), ("null:?a=b", "a: no such setting")])
def test_nothing_follows_the_colon(uri: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_sink(uri, SinkOptions())


@pytest.mark.slow
def test_a_job_into_nothing_counts_and_keeps_books(tmp_path: Path, photos: list[Path]) -> None:
    """It is finished as any other; a second run has nothing to do, and is not told that the rows are gone."""
    report = embed_images(photos[:6], to="null:", job=tmp_path / "job", **SMALL)
    assert report.accounting.written == 6
    assert report.extra["dead_letters"] is None
    again = embed_images(photos[:6], to="null:", job=tmp_path / "job", **SMALL)
    assert (again.accounting.written, again.extra["job"]["written"]) == (0, 6)


@pytest.mark.slow
def test_what_was_counted_cannot_be_searched(photos: list[Path]) -> None:
    with ImageEmbeddingPipeline(to="null:", **SMALL) as pipeline:
        assert len(pipeline.insert_images(photos[:3])) == 3
        assert pipeline.count() == 3
        with pytest.raises(ConfigError, match=r"^null: cannot be searched$"):
            pipeline.search(photos[0])


@pytest.mark.slow
def test_a_search_of_nothing_is_refused_by_its_name(photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "null:", str(photos[0])]) == 2
    assert "null: cannot be searched" in capsys.readouterr().err
