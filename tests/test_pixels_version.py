"""Vectors of before and after a correction of the pixels do not mix silently, in a job folder or in a collection."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import ConfigError, ImageEmbeddingPipeline
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.common.provenance import recipe_of
from penstock.engine.jobs.common.sink_cache import SinkCache
from penstock.engine.jobs.images.search import search_images
from penstock.engine.journal import read_status
from penstock.errors import CollectionMismatchError
from penstock.sinks import MilvusSink, ParquetBulkSink, RowBatch
from penstock.tests.whole_jobs import draw, draw_folder

VERSION = "penstock.engine.jobs.common.provenance.PIXELS_VERSION"


def before_versions(recipe: str) -> str:
    """A recipe as it was kept when there was one version only."""
    return json.dumps({name: said for name, said in json.loads(recipe).items() if name != "pixels_version"})


def one_row(key: str) -> RowBatch:
    return RowBatch([key], np.eye(1, 512, dtype=np.float32), [{"path": key}])


@pytest.fixture(params=["none is said", "another is said"])
def noted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[ServiceConfig], str]:
    """Makes the note of an older collection of a configuration. What is made now is version 7."""

    def note(config: ServiceConfig) -> str:
        recipe = recipe_of(make_plan(config))
        monkeypatch.setattr(VERSION, 7)
        return before_versions(recipe) if request.param == "none is said" else recipe

    return note


def test_adding_to_an_older_collection_is_refused_with_the_ways_on(
    noted: Callable[[ServiceConfig], str], tmp_path: Path
) -> None:
    """It says both versions, and the three options that help."""
    config = ServiceConfig(to=f"bulk:{tmp_path / 'parts'}")
    with ParquetBulkSink(tmp_path / "parts", 512, collection="images", note=noted(config)) as sink:
        sink.write(one_row("a"))
    said = r"version \d of the pixels, and version 7 is made now.*--collection.*--overwrite.*--accept-changes"
    with pytest.raises(CollectionMismatchError, match=said):
        SinkCache().to_write(config, make_plan(config), "images", lambda: 512)
    for way_on in ({"accept_changes": True}, {"mode": "overwrite"}):
        chosen = ServiceConfig(to=config.to, **way_on)
        stores = SinkCache()
        assert stores.to_write(chosen, make_plan(chosen), "images", lambda: 512).note
        stores.close()


def test_other_settings_are_not_accepted_with_the_version(tmp_path: Path) -> None:
    """Distances to vectors of another model mean nothing, whoever accepts them."""
    config = ServiceConfig(to=f"bulk:{tmp_path / 'parts'}", accept_changes=True)
    note = recipe_of(make_plan(ServiceConfig(to=config.to, background=(0, 0, 0))))
    with ParquetBulkSink(tmp_path / "parts", 512, collection="images", note=note) as sink:
        sink.write(one_row("a"))
    with pytest.raises(CollectionMismatchError, match="background"):
        SinkCache().to_write(config, make_plan(config), "images", lambda: 512)


@pytest.mark.slow
def test_an_older_collection_is_searched_with_one_warning(
    noted: Callable[[ServiceConfig], str], tmp_path: Path, photos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """What is in it can be found, whatever has been corrected since."""
    config = ServiceConfig(to=str(tmp_path / "photos.db"))
    with MilvusSink(str(tmp_path / "photos.db"), "images", 512, note=noted(config)) as sink:
        sink.write(one_row("a"))
    with caplog.at_level(logging.WARNING), ImageEmbeddingPipeline(config) as pipeline:
        assert [hit.key for _ in range(2) for hit in pipeline.search(photos[0], 1)] == ["a", "a"]
    assert [hit.key for hit in search_images(config, photos[0], 1)] == ["a"]
    messages = [record.getMessage() for record in caplog.records if "of the pixels" in record.getMessage()]
    assert len(messages) == 2  # one of each pipeline


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw_folder(tmp_path / "pictures", 3)
    return tmp_path


def embed(*more: str) -> int:
    return main(
        ["embed", "pictures", "--to", "bulk:parts", "--job", "job", "--workers", "1", "--progress", "none", *more]
    )


def forget_version() -> None:
    """The job folder as it was written when there was one version only."""
    manifest = Path("job", "job.json")
    said: dict[str, Any] = json.loads(manifest.read_text())
    pixels = json.loads(said["fingerprints"]["preprocess"])
    del pixels["pixels version"]
    said["fingerprints"]["preprocess"] = json.dumps(pixels, sort_keys=True)
    manifest.write_text(json.dumps(said))


@pytest.mark.slow
def test_an_older_job_goes_on_once_it_is_accepted(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused with both versions; accepted once, for its collection too, it stays so."""
    assert embed() == 0
    forget_version()
    monkeypatch.setattr(VERSION, 7)
    assert embed() == 2
    assert "pixels was pixels version 1, and is pixels version 7 now" in capsys.readouterr().err
    draw_folder(here / "pictures" / "more", 2)
    assert embed("--accept-changes", "--update") == 0
    draw_folder(here / "pictures" / "others", 2)
    assert main(["resume", "job", "--update"]) == 0
    assert read_status("job").counts.written == 7


@pytest.mark.slow
def test_a_retry_that_is_refused_goes_on_when_it_is_accepted(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one has marked the dead letter to be done again already."""
    broken = here / "pictures" / "broken.png"
    broken.write_bytes(b"words")
    assert embed() == 0
    draw(broken, np.random.default_rng(0))
    monkeypatch.setattr(VERSION, 7)
    assert main(["retry", "job"]) == 2
    assert "--accept-changes" in capsys.readouterr().err
    assert main(["retry", "job", "--accept-changes", "--progress", "none"]) == 0
    assert read_status("job").counts.written == 4


@pytest.mark.slow
def test_accepting_needs_no_job(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are added to an older collection without books, too."""
    common = ["embed", "pictures", "--to", "bulk:parts", "--workers", "1", "--progress", "none"]
    assert main(common) == 0
    monkeypatch.setattr(VERSION, 7)
    assert main(common) == 1
    assert main([*common, "--accept-changes"]) == 0


def test_a_job_of_this_version_goes_on(here: Path) -> None:
    """The fingerprint is the same each time."""
    from penstock.engine.jobs.common.checkpoint import JobCheckpoint
    from penstock.engine.sources import FileSource

    config = ServiceConfig(to="bulk:parts", job=Path("job"))
    for _ in range(2):
        with JobCheckpoint(config, make_plan(config), FileSource("pictures")) as books:
            assert not books.accepted_pixels
    forget_version()
    with (
        pytest.raises(ConfigError, match="pixels ver"),
        JobCheckpoint(config, make_plan(config), FileSource("pictures")),
    ):
        pass
