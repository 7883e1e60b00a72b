"""The demo's photographs: real pictures with stated licences, small, and such that a search finds something."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "photos"
PHOTOS = sorted(FOLDER.glob("*.jpg"))
LICENCES = ("public domain", "CC0 1.0", "CC BY 2.0", "CC BY 4.0")


def scene(path: Path) -> str:
    """What the picture shows: its name without the number of the view."""
    return re.sub(r"-\d$", "", path.stem)


def thumbnail(path: Path) -> npt.NDArray[np.float64]:
    """A crude descriptor: 12 x 12 grey values, normalized."""
    with Image.open(path) as image:
        grey = np.asarray(ImageOps.fit(image.convert("L"), (12, 12)), np.float64)
    grey -= grey.mean()
    grey /= np.linalg.norm(grey)
    return grey


def test_there_are_enough_photographs_and_they_are_small() -> None:
    """24 to 60 of them, 3 MB in all, none over 100 KB."""
    sizes = [path.stat().st_size for path in PHOTOS]
    assert 24 <= len(sizes) <= 60
    assert max(sizes) <= 100_000
    assert sum(sizes) <= 3_000_000


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_a_photograph_is_a_plain_jpeg(path: Path) -> None:
    """RGB, longest side 200 to 640, decodes to the end, carries no EXIF of its author."""
    with Image.open(path) as image:
        image.load()
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert 200 <= max(image.size) <= 640
        assert not image.getexif()


def test_every_scene_has_a_licence_and_every_licence_a_scene() -> None:
    """The table lists exactly what lies here, each with an author and a licence that is free."""
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \|$", (FOLDER / "LICENSES.md").read_text(), re.MULTILINE)
    assert {name for name, *_ in rows} == {scene(path) for path in PHOTOS}
    assert len(rows) == len({name for name, *_ in rows})
    assert all(author and licence in LICENCES and origin for _, author, licence, origin in rows)


def test_the_readme_says_how_many_there_are() -> None:
    """A count that is wrong is the first sign of a forgotten licence."""
    assert f"# {len(PHOTOS)} real photographs" in (FOLDER / "README.md").read_text()


def test_views_of_a_scene_find_each_other() -> None:
    """Even by 12 x 12 grey values most second views are the nearest to the first: a search demo has answers.

    Not all: this descriptor is blind to what GIST sees, and two views of a texture overlap by 60 % only.
    """
    vectors = np.stack([thumbnail(path).ravel() for path in PHOTOS])
    likeness = vectors @ vectors.T - 2 * np.eye(len(PHOTOS))
    names = [scene(path) for path in PHOTOS]
    paired = [index for index, name in enumerate(names) if names.count(name) > 1]
    found = [index for index in paired if names[int(likeness[index].argmax())] == names[index]]
    assert len(found) >= 0.8 * len(paired)
