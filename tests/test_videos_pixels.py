"""What pixels of a frame mean: upright, square, of the colours that were filmed."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.preprocess.videos import SampledFrame, Sampling, VideoInfo, open_video, sample
from penstock.preprocess.videos.hdr import HLG, PQ, to_srgb
from penstock.tests.clips import UInt8, make_clip, number, read_number

BT709, BT601, BT2020 = 1, 6, 9
FULL = 2
"""Numbers of H.273, as FFmpeg has them, for colour spaces (primaries, transfer) and for the range."""


def first(path: Path) -> tuple[SampledFrame, VideoInfo]:
    """The first frame of a clip."""
    with open_video(path) as video:
        return next(sample(video, Sampling.parse("1s"))), video.info


def corners(_: int, width: int = 320, height: int = 180) -> UInt8:
    """Red at the top left, green at the top right, blue at the bottom left, grey at the bottom right."""
    rgb = np.full((height, width, 3), 128, np.uint8)
    rgb[: height // 2, : width // 2] = 220, 30, 30
    rgb[: height // 2, width // 2 :] = 30, 200, 30
    rgb[height // 2 :, : width // 2] = 30, 30, 220
    return rgb


def quarters(rgb: UInt8) -> list[str]:
    """Which of the colours of `corners` lie in the corners of a frame: top left, top right, bottom left and right."""
    height, width = rgb.shape[:2]
    middles = itertools.product((height // 4, height * 3 // 4), (width // 4, width * 3 // 4))
    return ["x" if np.ptp(rgb[y, x]) < 40 else "rgb"[int(rgb[y, x].argmax())] for y, x in middles]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_are_upright(rotation: int, mirrored: bool, suffix: str, tmp_path: Path) -> None:
    """Turned counter-clockwise, then mirrored, as the file's matrix says; and so are the sizes."""
    path = make_clip(tmp_path / f"clip.{suffix}", frames=1, draw=corners, rotation=rotation, mirrored=mirrored)
    frame, info = first(path)
    coded = corners(0)
    seen = np.rot90(coded, rotation // 90)
    if mirrored:
        seen = seen[:, ::-1]
    rgb = frame.rgb()
    assert quarters(rgb) == quarters(seen)
    assert rgb.shape == seen.shape == (info.height, info.width, 3)
    assert info.is_mirrored == mirrored
    assert quarters(np.rot90(coded[:, ::-1] if mirrored else coded, info.rotation // 90)) == quarters(seen)
    assert rgb.flags.c_contiguous
    assert rgb.flags.owndata


@pytest.mark.parametrize(
    ("aspect", "size", "scaled"),
    [(Fraction(4, 3), (427, 180), (90, 213, 3)), (Fraction(1, 2), (320, 360), (101, 90, 3))],
)
def test_pixels_are_square(
    aspect: Fraction, size: tuple[int, int], scaled: tuple[int, int, int], tmp_path: Path
) -> None:
    """What was squeezed is stretched; no line is lost."""
    frame, info = first(make_clip(tmp_path / "clip.mp4", frames=1, sample_aspect_ratio=aspect))
    assert (info.width, info.height) == size
    assert frame.rgb().shape == (size[1], size[0], 3)
    assert frame.rgb(90).shape == scaled
    assert read_number(frame.rgb(90)) == 0


def test_an_aspect_ratio_that_cannot_be_is_not_believed(tmp_path: Path) -> None:
    """It would make gigabytes of a small frame."""
    _, info = first(make_clip(tmp_path / "clip.mp4", frames=1, sample_aspect_ratio=Fraction(5000, 1)))
    assert (info.width, info.height) == (320, 180)


@pytest.mark.parametrize(
    ("short_side", "size"),
    [(90, (160, 90)), (45, (80, 45)), (64, (114, 64)), (1, (2, 1)), (180, (320, 180)), (500, (320, 180))],
)
def test_frames_are_scaled_down_and_never_up(short_side: int, size: tuple[int, int], tmp_path: Path) -> None:
    """By the mean of what each new pixel covers: nothing twinkles."""
    frame, _ = first(make_clip(tmp_path / "clip.mp4", frames=1, draw=stripes))
    rgb = frame.rgb(short_side)
    assert rgb.shape == (size[1], size[0], 3)
    if short_side in (90, 45):  # of others the lines do not divide evenly
        assert np.abs(rgb.astype(int) - 128).max() <= 8


def stripes(_: int) -> UInt8:
    """Lines of one pixel, black and white in turn."""
    return np.repeat(np.repeat(np.arange(180)[:, None, None] % 2 * 255, 320, 1), 3, 2).astype(np.uint8)


@pytest.mark.parametrize(("width", "height"), [(321, 181), (319, 179), (33, 17)])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p"])
def test_odd_sizes_are_whole(width: int, height: int, pix_fmt: str, tmp_path: Path) -> None:
    """Rows of such a frame are padded in the decoder's memory; the padding is not passed on."""

    def draw(n: int) -> UInt8:
        return number(np.full((height, width, 3), 100, np.uint8), n)

    codec = "libx264" if pix_fmt == "yuv444p" else "libvpx-vp9"  # H.264 of 4:2:0 has even sides
    frame, info = first(
        make_clip(tmp_path / "clip.mkv", frames=1, width=width, height=height, pix_fmt=pix_fmt, codec=codec, draw=draw)
    )
    rgb = frame.rgb()
    assert rgb.shape == (info.height, info.width, 3) == (height, width, 3)
    assert rgb.flags.c_contiguous
    assert np.abs(rgb[height // 2 :].astype(int) - 100).max() <= 6


TAGGED: dict[str, dict[str, int]] = {
    "BT.709": {"colorspace": BT709, "color_primaries": BT709, "color_trc": BT709},
    "BT.601": {"colorspace": BT601, "color_primaries": BT601, "color_trc": BT601},
    "BT.2020": {"colorspace": BT2020},
    "full range": {"colorspace": BT709, "color_range": FULL},
}


@pytest.mark.parametrize("tags", TAGGED.values(), ids=TAGGED)
@pytest.mark.parametrize("height", [180, 720])
def test_tags_of_colours_are_obeyed(tags: dict[str, int], height: int, tmp_path: Path) -> None:
    """Within two levels, and what scaling and coding add."""
    clip: dict[str, Any] = {"width": height * 16 // 9, "height": height, "frames": 1, "options": {"qp": "1"}}
    size = (clip["width"], height)
    path = make_clip(tmp_path / "clip.mp4", **clip, draw=lambda n: corners(n, *size), tags=tags)
    assert_colours(first(path)[0].rgb(), corners(0, *size))


@pytest.mark.parametrize(("height", "meant"), [(720, BT709), (1080, BT709), (576, BT601)])
def test_untagged_video_is_of_bt709_from_720_lines(height: int, meant: int, tmp_path: Path) -> None:
    """As broadcasters and cameras have it; FFmpeg takes all for BT.601 and is wrong by 23 levels."""
    size = (height * 16 // 9, height)

    def draw(n: int) -> UInt8:
        return corners(n, *size)

    path = make_clip(
        tmp_path / "clip.mkv", frames=1, width=size[0], height=height, draw=draw, coded_as=meant, options={"qp": "1"}
    )
    assert_colours(first(path)[0].rgb(), draw(0))


def test_untagged_interlaced_video_is_of_bt709_by_all_its_lines(tmp_path: Path) -> None:
    """A field of 1080 lines has 540, and is HD."""

    def draw(n: int) -> UInt8:
        return corners(n, 1920, 1080)

    options = {"x264-params": "interlaced=1", "qp": "1"}
    path = make_clip(
        tmp_path / "clip.mkv", frames=1, width=1920, height=1080, draw=draw, coded_as=BT709, options=options
    )
    frame, info = first(path)
    assert info.is_interlaced
    assert_colours(frame.rgb(), draw(0), most=5)  # of BT.601 it would be 29


def assert_colours(found: UInt8, true: UInt8, most: int = 3) -> None:
    height, width = true.shape[:2]
    for y, x in itertools.product((height // 4, height * 3 // 4), (width // 4, width * 3 // 4)):
        assert np.abs(found[y, x].astype(int) - true[y, x]).max() <= most, (found[y, x], true[y, x])


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p10le"])
def test_ten_bits_are_as_good_as_eight(pix_fmt: str, tmp_path: Path) -> None:
    """Of any subsampling."""
    path = make_clip(
        tmp_path / "clip.mkv", frames=1, codec="libx265", pix_fmt=pix_fmt, draw=corners,
        tags={"colorspace": BT709}, options={"crf": "5"},
    )  # fmt: skip
    assert_colours(first(path)[0].rgb(), corners(0))


def test_of_two_fields_one_is_taken(tmp_path: Path) -> None:
    """What moves between them would have a comb; the size stays."""

    def draw(n: int) -> UInt8:
        rgb = np.full((180, 320, 3), 40, np.uint8)
        rgb[0::2, 100:160] = 220  # one field
        rgb[1::2, 140:200] = 220  # the other, when the bar has moved
        return rgb

    path = make_clip(tmp_path / "clip.mp4", frames=1, draw=draw, options={"x264-params": "interlaced=1", "qp": "5"})
    frame, info = first(path)
    assert info.is_interlaced
    rgb = frame.rgb()
    assert rgb.shape == (180, 320, 3)
    assert np.abs(np.diff(rgb[8:-8, :, 0].astype(int), axis=0)).max() <= 12
    assert rgb[90, 110, 0] > 200
    assert rgb[90, 190, 0] < 60
    assert frame.rgb(45).shape == (45, 80, 3)


@pytest.mark.parametrize(("nits", "level"), [(1, 15), (10, 63), (50, 136), (100, 186), (203, 255), (1000, 255)])
def test_pq_is_shown_with_reference_white_at_the_top(nits: float, level: int, tmp_path: Path) -> None:
    """As sRGB of the same light; what is brighter is clipped, not grey."""
    assert_grey(tmp_path, coded_pq(nits), PQ, level)


@pytest.mark.parametrize(("light", "level"), [(0.01, 38), (0.1, 151), (0.265, 254), (1, 255)])
def test_hlg_is_shown_with_reference_white_at_the_top(light: float, level: int, tmp_path: Path) -> None:
    """As on a display of 1000 candelas."""
    coded = (3 * light) ** 0.5 if light <= 1 / 12 else 0.17883277 * np.log(12 * light - 0.28466892) + 0.55991073
    assert_grey(tmp_path, coded, HLG, level)


def assert_grey(folder: Path, coded: float, transfer: int, level: int) -> None:
    grey = np.full((180, 320, 3), round(coded * 65535), np.uint16)
    tags = {"colorspace": BT2020, "color_primaries": BT2020, "color_trc": transfer}
    path = make_clip(
        folder / "clip.mkv", frames=1, codec="libx265", pix_fmt="yuv420p10le", draw=lambda _: grey, tags=tags,
        options={"crf": "5"},
    )  # fmt: skip
    frame, info = first(path)
    assert info.is_hdr
    for rgb in (frame.rgb(), frame.rgb(64)):
        assert np.abs(rgb.astype(int) - level).max() <= 3


def coded_pq(nits: float) -> float:
    """ST 2084."""
    root = (nits / 10_000) ** (2610 / 16384)
    return float(((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32))


def test_colours_of_hdr_are_those_of_srgb() -> None:
    """Red of sRGB, said in primaries of BT.2020, is red again; and of sRGB's own primaries nothing changes."""
    red = np.array([0.6274, 0.0691, 0.0164])
    coded = np.array([[[round(coded_pq(203 * part) * 65535) for part in red]]], np.uint16)
    assert np.abs(to_srgb(coded, PQ)[0, 0].astype(int) - (255, 0, 0)).max() <= 3
    own = to_srgb(np.array([[[65535, 0, 0]]], np.uint16), PQ, is_bt2020=False)
    assert own.tolist() == [[[255, 0, 0]]]
