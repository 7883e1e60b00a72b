"""A picture that takes too long, in a whole job."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from penstock import ImageEmbeddingPipeline
from penstock.sinks.dead_letters import read_dead_letters

SABOTAGE = """
    import time
    from penstock.preprocess.worker.preprocessor import Preprocessor

    load = Preprocessor.load

    def hanging(self, row, source):
        if b"take your time" in bytes(source):
            time.sleep(3600)
        return load(self, row, source)

    Preprocessor.load = hanging

    def embed(pixels):
        return pixels.reshape(len(pixels), -1)[:, :8]
"""


@pytest.mark.kills
@pytest.mark.slow
def test_a_picture_over_its_deadline_is_a_dead_letter_and_its_neighbours_are_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sabotage_timeout.py").write_text(textwrap.dedent(SABOTAGE))
    paths = [tmp_path / f"{name}.png" for name in ("one", "slow", "two")]
    slow = PngInfo()
    slow.add_text("note", "take your time")
    for path in paths:
        picture = Image.fromarray(np.full((24, 24, 3), 7, np.uint8))
        picture.save(path, pnginfo=slow if path.stem == "slow" else None)
    settings: dict[str, Any] = {"to": str(tmp_path / "photos.db"), "workers": 1, "job": tmp_path / "job"}
    embedder = "jax:sabotage_timeout:embed"
    with ImageEmbeddingPipeline(embedder=embedder, item_timeout=0.5, **settings) as pipeline:
        written = pipeline.insert_images_streaming(paths)
        assert [one is None for one in written] == [False, True, False]
        assert pipeline.count() == 2
    (letter,) = read_dead_letters(pipeline.dead_letters)
    assert (letter.error, Path(str(letter.key)).name) == ("DeadlineError", "slow.png")
