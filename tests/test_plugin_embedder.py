"""An embedder outside of the package, in one file: histograms of colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from penstock import ConfigError, ImageEmbeddingPipeline, embed_images
from penstock.engine.embedders import parse_embedder
from penstock.testing.embedders import EmbedderContract, PlainPixels

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_plugins")]


class TestColours(EmbedderContract):
    """The contract, by its scheme."""

    bad = (({"dtype": "float32"}, "--dtype uint8"),)

    @pytest.fixture
    def made(self) -> tuple[str, str]:
        return "colours:4", "colours:3"


class TestColoursLast(TestColours):
    """With channels last."""

    pixels = PlainPixels(layout="NHWC")


@pytest.mark.parametrize("spec", ["colours:1", "colours:9", "colours:x", "colours:4?parts=3"])
def test_what_cannot_be_is_refused(spec: str) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match="colours"):
        parse_embedder(spec)


def test_workers_make_its_vectors_and_a_search_finds_the_like_colour(tmp_path: Path) -> None:
    """A whole job, with a store that says what it was made by."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in {
        "red": (250, 5, 5),
        "green": (5, 250, 5),
        "blue": (5, 5, 250),
        "dark red": (200, 30, 10),
    }.items():
        Image.new("RGB", (50, 40), colour).save(folder / f"{name}.png")
    to = tmp_path / "photos.db"
    report = embed_images(folder, to=to, embedder="colours:2", workers=1, batch_size=4)
    assert report.accounting.written == 4
    Image.new("RGB", (30, 30), (220, 20, 20)).save(tmp_path / "query.png")
    with ImageEmbeddingPipeline(to=to, workers=1, batch_size=4, embedder="colours:2") as pipeline:
        hits = pipeline.search(str(tmp_path / "query.png"), 4)
    assert {Path(hit.path or "").stem for hit in hits[:2]} == {"red", "dark red"}
    assert np.allclose([hit.score for hit in hits], [1, 1, 0, 0], atol=1e-5)
