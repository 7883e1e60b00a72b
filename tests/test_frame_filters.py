"""Statistics of frames, and what filters make of them: photographs stay, what was done to copies is noticed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from penstock.errors import ConfigError
from penstock.preprocess.videos.filters import FILTERS, Filter, Thresholds, decide
from penstock.preprocess.videos.statistics import SIDE, STATISTICS, FrameStatistics, squash224, statistics_of

UInt8 = npt.NDArray[np.uint8]
PHOTOS = sorted((Path(__file__).resolve().parent.parent / "examples" / "photos").glob("*.jpg"))


@cache
def photos() -> tuple[Image.Image, ...]:
    """All 43."""
    found: list[Image.Image] = []
    for path in PHOTOS:
        with Image.open(path) as image:
            found.append(image.convert("RGB"))
    return tuple(found)


def seen(pictures: Sequence[Image.Image]) -> FrameStatistics:
    return statistics_of(np.stack([squash224(np.asarray(picture)) for picture in pictures]))


def darker(light: float) -> list[Image.Image]:
    return [Image.fromarray((np.asarray(photo) * light).astype(np.uint8)) for photo in photos()]


def slide(seed: int) -> Image.Image:
    """A title and some lines of made-up words."""
    rng = np.random.default_rng(seed)
    paper, ink = ((16, 36, 58), (255, 255, 255)) if seed % 3 == 2 else ((255, 255, 255), (0, 0, 0))
    image = Image.new("RGB", (1280, 720), paper)
    draw = ImageDraw.Draw(image)

    def words(count: int) -> str:
        return " ".join("".join(map(chr, rng.integers(97, 123, rng.integers(3, 10)))) for _ in range(count))

    draw.text((80, 60), words(3), ink, ImageFont.load_default(56))
    for line in range(rng.integers(2, 6)):
        draw.text((110, 170 + line * 80), f"- {words(4)}", ink, ImageFont.load_default(34))
    return image


def snow() -> Image.Image:
    grey = np.random.default_rng(0).integers(0, 256, (480, 640, 1), np.uint8)
    return Image.fromarray(np.repeat(grey, 3, axis=2))


def shares(pictures: Sequence[Image.Image], thresholds: Thresholds | None = None) -> dict[Filter | None, float]:
    """Which share of pictures goes by which filter, all of them asked; None: what stays."""
    counts = Counter(decide(seen(pictures), FILTERS, thresholds))
    return {name: count / len(pictures) for name, count in counts.items()}


def in_numpy(frame: UInt8) -> list[float]:
    """The definitions, in double precision."""
    thousandths = frame.astype(np.int64) @ (299, 587, 114)
    luma = thousandths / 1000
    histogram = np.bincount((thousandths // 8000).ravel(), minlength=32) / luma.size
    parts = histogram[histogram > 0]
    laplacian = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    across, down = np.diff(thousandths, axis=1)[:-1], np.diff(thousandths, axis=0)[:, :-1]
    step = np.maximum(abs(across), abs(down))
    blur = laplacian.var() / luma.var() if luma.var() else 0.0
    entropy = -(parts * np.log2(parts)).sum()
    return [luma.mean(), luma.std(), entropy, blur, histogram.max(), (step < 2000).mean(), (step > 40000).mean()]


def test_the_kernel_computes_the_definitions() -> None:
    """Of photographs, of a grey one (whose steps lie just on the bounds), of noise, of one colour, of black."""
    pictures = [*photos()[:8], photos()[6].convert("L").convert("RGB"), snow()]
    pictures += [Image.new("RGB", (9, 5), colour) for colour in ("black", "white", "tomato")]
    frames = np.stack([squash224(np.asarray(picture)) for picture in pictures])
    found = np.stack(list(statistics_of(frames).columns().values()), axis=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [in_numpy(frame) for frame in frames], rtol=1e-4, atol=1e-6)


def test_a_frame_is_measured_alike_in_any_company() -> None:
    """Alone, among others, and none at all; as columns and back."""
    whole = seen(photos()[:5])
    for row in range(5):
        alone = seen(photos()[row : row + 1])
        assert all(whole.columns()[name][row] == alone.columns()[name][0] for name in STATISTICS)
    empty = statistics_of(np.empty((0, SIDE, SIDE, 3), np.uint8))
    assert len(empty) == 0
    assert decide(empty) == []
    stored = {name: column.tolist() for name, column in whole.columns().items()}
    again = FrameStatistics(**{name: np.array(column, np.float32) for name, column in stored.items()})
    assert decide(again, FILTERS, Thresholds(blur=0.5)) == decide(whole, FILTERS, Thresholds(blur=0.5))


def test_no_photograph_is_dropped() -> None:
    """By none of the filters, as they come; stricter about blur, one in twenty."""
    assert shares(photos()) == {None: 1.0}
    assert shares(photos(), Thresholds(blur=0.05))[None] >= 0.9


def test_black_frames_go_and_dark_sharp_ones_are_not_blurred() -> None:
    """At a twentieth of the light all are black; at a seventh half of them, and sharpness is what it was."""
    assert shares(darker(0.05)) == {"black": 1.0}
    dark = seen(darker(0.15))
    assert 0.3 <= decide(dark, ["black"]).count("black") / len(PHOTOS) <= 0.6
    assert decide(dark, ["blur"]) == [None] * len(PHOTOS)


def test_blurred_frames_go() -> None:
    """A Gaussian of 4 pixels: four of five; stricter, nearly all."""
    copies = [photo.filter(ImageFilter.GaussianBlur(4)) for photo in photos()]
    assert shares(copies)["blur"] >= 0.75
    assert shares(copies, Thresholds(blur=0.05))["blur"] >= 0.9


def test_slides_of_text_go_as_slides_only() -> None:
    """All of them. Whoever does not ask for slides keeps them, although flat is asked, and a third of them is."""
    slides = [slide(seed) for seed in range(12)]
    assert shares(slides) == {"slide": 1.0}
    found = seen(slides)
    assert decide(found, ["blur", "black", "flat"]) == [None] * 12
    never_slides = Thresholds(slide_bin=1, flat_entropy=1.0)
    assert decide(found, ["flat"], never_slides).count("flat") > 0


def test_one_colour_is_flat_and_snow_is_noise() -> None:
    """A uniform frame has no sharpness to be divided, and is no error; where black is asked, black is black."""
    plain = [Image.new("RGB", (640, 480), colour) for colour in ("tomato", "white", "black")]
    assert decide(seen(plain), FILTERS) == ["flat", "flat", "black"]
    assert decide(seen(plain), ["flat"]) == ["flat"] * 3
    assert decide(seen([snow()]), FILTERS) == ["noise"]
    assert decide(seen([snow()])) == [None]


def test_the_first_filter_in_a_fixed_order_is_named() -> None:
    """However they are listed: a black frame of one colour is black, though also flat and blurred."""
    black = seen([Image.new("RGB", (64, 64))])
    assert decide(black, ["blur", "flat", "black"]) == decide(black, ["black", "flat", "blur"]) == ["black"]
    assert decide(black, ["blur", "flat"]) == ["flat"]
    assert decide(black, []) == [None]


def test_other_pixels_are_refused() -> None:
    """By their shape and type, with what is wanted."""
    floats: Any = np.zeros((2, SIDE, SIDE, 3), np.float32)
    for wrong in (np.zeros((2, 64, 64, 3), np.uint8), floats):
        with pytest.raises(ConfigError, match=r"statistics are of uint8 frames \[B, 224, 224, 3\], and these are"):
            statistics_of(wrong)


def test_thresholds_are_parsed() -> None:
    """Those that are said; others stay."""
    assert Thresholds.parse("") == Thresholds()
    assert Thresholds.parse("blur=0.05, noise=12") == Thresholds(blur=0.05, noise=12.0)
    assert Thresholds.parse("blur=0.05,noise=8").changed() == {"blur": 0.05}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sharp=1", "thresholds: there is no 'sharp', there are black_mean"),
        ("blur", "thresholds: 'blur': they are written name=number"),
        ("blur=x", "thresholds: 'blur=x': they are written name=number"),
        ("blur=nan", "blur=nan: it must be a finite number from 0 up"),
        ("blur=-1", r"blur=-1\.0: it must be a finite number from 0 up"),
    ],
)
def test_wrong_thresholds_are_refused(text: str, message: str) -> None:
    """One line that says which and why."""
    with pytest.raises(ConfigError, match=message):
        Thresholds.parse(text)


def test_decisions_need_no_jax() -> None:
    """The parent of a job decides from stored statistics, and must not start a backend."""
    code = (
        "import sys; from penstock.preprocess import pdq; "
        "from penstock.preprocess.videos import filters, letterbox, neighbours, statistics; print('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
