"""Generated pictures: the same each time, of the right size, and a hostile folder whose expectations hold."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image

from penstock import errors
from penstock.bench import pictures
from penstock.bench.hostile import Expected, make_hostile
from penstock.bench.pictures import RECIPES, encode, link_set, make_set, texture
from penstock.errors import ConfigError


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Expected]]:
    """The hostile folder and what is expected of it; only read."""
    folder = tmp_path_factory.mktemp("hostile")
    return folder, make_hostile(folder)


def test_a_picture_depends_on_set_seed_and_number_only() -> None:
    """Same bytes for the same three, other bytes for any other."""
    assert encode("imagenet500", 3) == encode("imagenet500", 3)
    others = [encode("imagenet500", 4), encode("imagenet500", 3, seed=1), encode("mixed", 3)]
    assert encode("imagenet500", 3) not in others


def test_a_folder_is_grown_not_made_anew(tmp_path: Path) -> None:
    """What is there stays, what is missing is added, and no half-written file is left."""
    first = make_set("imagenet500", tmp_path, 2)
    stamps = [Path(path).stat().st_mtime_ns for path in first]
    second = make_set("imagenet500", tmp_path, 3)
    assert second[:2] == first
    assert [Path(path).stat().st_mtime_ns for path in first] == stamps
    assert sorted(str(path) for path in (tmp_path / "imagenet500-0").iterdir()) == second


def test_an_unknown_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """The message is the documentation."""
    with pytest.raises(ConfigError, match="imagenet500"):
        make_set("imagenet", tmp_path, 1)


@pytest.mark.parametrize("name", RECIPES)
def test_pictures_have_the_sizes_of_their_set(name: str) -> None:
    """As decoded: RGB, 4:2:0, sizes in turn."""
    sizes = RECIPES[name].sizes
    for index in range(min(len(sizes), 3)):
        with Image.open(io.BytesIO(encode(name, index))) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", sizes[index])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "least", "most"), [("imagenet500", 48, 50, 70), ("camera2048", 12, 520, 780)]
)
def test_pictures_have_the_bytes_of_real_ones(name: str, count: int, least: float, most: float) -> None:
    """About 60 KB at 500x375 and 650 KB at 2048x1536: decoding time follows the bytes, not the pixels."""
    assert least < mean(len(encode(name, index)) for index in range(count)) / 1e3 < most


def test_noise_is_added_after_scaling() -> None:
    """Neighbouring pixels differ as a sensor's do; a scaled-up crop alone would be smooth."""
    with Image.open(io.BytesIO(encode("camera2048", 0))) as image:
        pixels = np.asarray(image.convert("L")).astype(float)
    assert np.median(np.abs(np.diff(pixels, axis=1))) > 2


def test_textures_stand_in_for_photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outside a checkout there are no photographs; pictures of plausible size come out all the same."""
    monkeypatch.setattr(pictures, "PHOTOS", tmp_path)
    pictures.photographs.cache_clear()
    try:
        assert 25e3 < len(encode("imagenet500", 0)) < 120e3
    finally:
        pictures.photographs.cache_clear()


def test_a_texture_has_contrast_and_colours() -> None:
    """Not a grey plane."""
    pixels = np.asarray(texture(0)).astype(float)
    assert pixels.std() > 20
    assert np.abs(pixels[..., 0] - pixels[..., 2]).mean() > 3


def test_links_make_many_names_of_few_files(tmp_path: Path) -> None:
    """Twenty thousand inputs cost no disk."""
    paths = make_set("imagenet500", tmp_path, 2)
    folder = link_set(paths, tmp_path / "many", 5)
    assert len({path.stat().st_ino for path in folder.rglob("*.jpg")}) == 2
    assert len(list(link_set(paths, tmp_path / "many", 1003).rglob("*.jpg"))) == 1003
    assert len(list((folder / "000").iterdir())) == 1000


def test_each_hostile_file_has_an_expectation(hostile: tuple[Path, dict[str, Expected]]) -> None:
    """Nothing lies there that is not accounted for, and nothing is expected that does not lie there."""
    folder, expected = hostile
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    assert there == set(expected)
    assert len(expected) > 50


def test_hostile_expectations_are_consistent(hostile: tuple[Path, dict[str, Expected]]) -> None:
    """A row has a size and no error, a dead letter the name of an ItemError, what is filtered neither."""
    for name, expected in hostile[1].items():
        assert (expected.size is not None) == (expected.outcome == "row"), name
        assert (expected.error is not None) == (expected.outcome == "dead"), name
        if expected.error:
            assert issubclass(getattr(errors, expected.error), errors.ItemError), name


def test_hostile_rows_are_pictures_of_the_stated_size(hostile: tuple[Path, dict[str, Expected]]) -> None:
    """By Pillow, with the EXIF orientation taken into account."""
    folder, expected = hostile
    for name in (name for name, end in expected.items() if end.outcome == "row"):
        with Image.open(folder / name) as image:
            turned = image.getexif().get(0x0112, 1) > 4
            assert (image.size[::-1] if turned else image.size) == expected[name].size, name


def test_hostile_bombs_promise_much_and_weigh_nothing(hostile: tuple[Path, dict[str, Expected]]) -> None:
    """Each is under a kilobyte, and over the limit by its header alone."""
    bombs = [name for name, end in hostile[1].items() if end.error == "TooLargeError"]
    assert len(bombs) >= 4
    for name in bombs:
        assert (hostile[0] / name).stat().st_size < 1000, name


def test_the_hostile_folder_holds_what_must_not_be_opened(hostile: tuple[Path, dict[str, Expected]]) -> None:
    """A FIFO under a picture's name, and a link to nothing."""
    folder = hostile[0]
    assert stat.S_ISFIFO((folder / "pipe.jpg").stat().st_mode)
    assert (folder / "gone.jpg").is_symlink()
    assert not (folder / "gone.jpg").exists()


@pytest.mark.slow
def test_decoding_the_hostile_folder_ends_as_expected(hostile: tuple[Path, dict[str, Expected]]) -> None:
    """File by file through penstock's decoder: the size of each row, the error class of each dead letter."""
    from penstock.preprocess.decode.decode import decode_into
    from penstock.preprocess.kernel.canvas import make_canvas
    from penstock.preprocess.spec import PreprocessSpec

    folder, expected = hostile
    spec = PreprocessSpec()
    canvas = make_canvas(spec, 1)[0]
    for name, end in expected.items():
        if end.outcome == "row":
            placed = decode_into(str(folder / name), spec, canvas)
            assert (placed.width, placed.height) == end.size, name
        elif end.error:
            with pytest.raises(getattr(errors, end.error)):
                decode_into(str(folder / name), spec, canvas)
