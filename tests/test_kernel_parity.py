"""The kernel's pixels against an independent Pillow and NumPy reference in the models' own order of operations."""

import functools
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from penstock.errors import DecodeError
from penstock.preprocess.kernel.canvas import aligned
from penstock.preprocess.presets import PRESETS, preset
from penstock.preprocess.spec import PreprocessSpec
from penstock.preprocess.worker.preprocessor import Preprocessor

# A kernel takes a second to compile, and most tests here are the first to need theirs.
pytestmark = pytest.mark.slow

UInt8 = npt.NDArray[np.uint8]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def photo(width: int, height: int, seed: int = 0) -> UInt8:
    """A picture with a photograph's spectrum (noise of falling strength at every scale) and some hard edges."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128.0)
    cells, strength = 4, 60.0
    while cells < max(width, height):
        coarse = rng.normal(0, strength, (min(cells, height), min(cells, width), 3)).astype(np.float32)
        bands = [
            np.asarray(Image.fromarray(coarse[:, :, c]).resize((width, height), Image.Resampling.BICUBIC))
            for c in range(3)
        ]
        total += np.stack(bands, -1)
        cells, strength = cells * 2, strength * 0.62
    total[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 40)
    return total.clip(0, 255).astype(np.uint8)


def encoded(pixels: UInt8, name: str, **options: Any) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, **options)
    return file.getvalue()


def reference(pixels: UInt8, spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    """The full-size picture resized by Pillow, cropped as torchvision does: float32 ``[size, size, 3]`` of 0..255."""
    image, filter_ = Image.fromarray(pixels), FILTERS[spec.interpolation]
    size = spec.size
    if spec.resize is None:
        return np.asarray(image.resize((size, size), filter_), np.float32)
    short, long = min(image.size), max(image.size)
    new_long = int(spec.resize * long / short)
    new = (spec.resize, new_long) if image.width <= image.height else (new_long, spec.resize)
    left, top = (round((side - size) / 2.0) for side in new)
    if spec.crop_rounding == "floor":
        left, top = ((side - size) // 2 for side in new)
    return np.asarray(image.resize(new, filter_).crop((left, top, left + size, top + size)), np.float32)


@functools.cache
def preprocessor_for(spec: PreprocessSpec) -> Preprocessor:
    """Compiling takes a second; that pixels do not depend on what was done before has its own test."""
    return Preprocessor(spec, 1)


def run(source: Any, spec: PreprocessSpec) -> npt.NDArray[Any]:
    """One picture through a Preprocessor."""
    preprocessor = preprocessor_for(spec)
    preprocessor.load(0, source)
    out: npt.NDArray[Any] = np.empty((1, *spec.pixel_shape()), spec.pixel_dtype())
    preprocessor.run(out, [0])
    return out.reshape(out.shape[1:])


def plain(**changes: Any) -> PreprocessSpec:
    """0..255, channels last, so that differences are in grey levels."""
    settings: dict[str, Any] = {"size": 96, "resize": 96, "layout": "NHWC", "dtype": "uint8", **changes}
    return PreprocessSpec(**settings)


def check(got: npt.NDArray[Any], expected: npt.NDArray[Any], mean: float, most: float) -> None:
    difference = np.abs(got.astype(np.float32) - expected)
    assert difference.mean() <= mean, f"mean {difference.mean():.3f}"
    assert difference.max() <= most, f"max {difference.max():.1f}"


# width, height in units of the 96 px target: upscaled, exact, between, twice (nothing reduced)
NEAR = [(40, 30), (96, 96), (97, 96), (130, 101), (128, 171), (161, 215), (192, 192), (193, 300), (96, 400), (17, 190)]
FAR = [(400, 300), (1000, 667), (667, 1000), (391, 779), (2000, 1504)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", NEAR)
def test_near_sizes_match_pillow(size: tuple[int, int], interpolation: Any) -> None:
    """Up to twice the target nothing is reduced first: mean within 0.25, at most 12 (Pillow rounds between passes)."""
    spec, pixels = plain(interpolation=interpolation), photo(*size)
    check(run(pixels, spec), reference(pixels, spec), 0.25, 12)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", FAR)
@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_far_sizes_match_pillow_loosely(size: tuple[int, int], name: str, interpolation: Any) -> None:
    """Reduced by the decoder or by box means first: mean within 1.5, at most 40."""
    spec, pixels = plain(interpolation=interpolation), photo(*size)
    data = encoded(pixels, name, **({"quality": 95, "subsampling": 0} if name == "JPEG" else {}))
    full = np.asarray(Image.open(io.BytesIO(data)))
    check(run(data, spec), reference(full, spec), 1.5, 40)


@pytest.mark.parametrize("size", NEAR)
def test_float_pixels_are_nearer_than_rounding(size: tuple[int, int]) -> None:
    """Floats differ from Pillow's integers by the integers' own rounding (a mean of 0.25) and little more."""
    spec, pixels = plain(dtype="float32"), photo(*size)
    check(run(pixels, spec), reference(pixels, spec), 0.32, 12)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (3, 1000), (1500, 7), (96, 1), (191, 193)])
@pytest.mark.parametrize("resize", [None, 96])
def test_extreme_shapes_match_pillow(size: tuple[int, int], resize: int | None) -> None:
    """Slivers and dots come out like Pillow's, cropped or squashed."""
    spec, pixels = plain(resize=resize), photo(*size)
    squashed = resize is None and max(size) > 192  # box means along the long side
    check(run(pixels, spec), reference(pixels, spec), *((2.5, 60) if squashed else (0.25, 12)))


@pytest.mark.parametrize(
    ("size", "interpolation"), [(16, "bilinear"), (17, "bicubic"), (63, "bicubic"), (100, "bilinear"), (225, "bicubic")]
)
def test_any_target_size_matches_pillow(size: int, interpolation: Any) -> None:
    """Targets that are no multiple of the kernel's blocks are as exact as those that are."""
    for source in ((size, size + 1), (3 * size // 2, 2 * size), (size // 2 + 1, size)):
        spec, pixels = plain(size=size, resize=size, interpolation=interpolation), photo(*source)
        check(run(pixels, spec), reference(pixels, spec), 0.25, 12)


@pytest.mark.parametrize(("name", "layout"), [*((name, "NCHW") for name in sorted(PRESETS)), ("clip", "NHWC")])
@pytest.mark.parametrize("source", [(500, 375), (375, 500), (240, 320)])
def test_presets_follow_their_reference(name: str, layout: Any, source: tuple[int, int]) -> None:
    """Each preset against resize, crop, /255, -mean, /std written out: within 0.03 of a normalized unit on average."""
    spec, pixels = preset(name, layout=layout), photo(*source)
    assert spec.mean is not None
    assert spec.std is not None
    expected = (reference(pixels, spec) / 255 - np.array(spec.mean)) / np.array(spec.std)
    got = run(pixels, spec)
    assert got.dtype == np.float32
    squashed = spec.resize is None and max(source) > 2 * spec.size
    difference = np.abs((got.transpose(1, 2, 0) if layout == "NCHW" else got) - expected)
    assert difference.mean() <= (0.03 if squashed else 0.005)
    assert difference.max() <= (0.7 if squashed else 0.15)


@pytest.mark.parametrize("rounding", ["round", "floor"])
def test_crop_rounding_is_the_references(rounding: Any) -> None:
    """A whole pixel's shift is seen: the margin here is odd."""
    spec, pixels = plain(crop_rounding=rounding), photo(195, 96)
    other = plain(crop_rounding="floor" if rounding == "round" else "round")
    check(run(pixels, spec), reference(pixels, spec), 0.25, 12)
    assert np.abs(run(pixels, spec) - reference(pixels, other)).mean() > 1


def test_uint8_is_the_rounded_float() -> None:
    """uint8 rounds to nearest and is not normalized, whatever mean and std say."""
    pixels = photo(150, 130)
    exact = run(pixels, plain(dtype="float32"))
    rounded = run(pixels, plain(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    assert rounded.dtype == np.uint8
    assert np.abs(rounded - exact).max() <= 0.5001
    exact_size = photo(96, 96)
    assert (run(exact_size, plain()) == exact_size).all()


def test_float16_is_the_rounded_float() -> None:
    """float16 is the float32 result cast."""
    pixels = photo(150, 130)
    settings: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}
    half = run(pixels, plain(dtype="float16", **settings))
    assert half.dtype == np.float16
    assert (half == run(pixels, plain(dtype="float32", **settings)).astype(np.float16)).all()


def test_values_stay_within_the_scale() -> None:
    """Overshoot of the bicubic filter at hard edges is clipped like Pillow's."""
    pixels = np.zeros((150, 150, 3), np.uint8)
    pixels[:, 75:] = 255
    got = run(pixels, plain())
    assert got.min() == 0
    assert got.max() == 255


def test_transform_replaces_normalization(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's JAX function gets 0..255 float32 channels last, and its array is the row."""
    (tmp_path / "halves_of_test_kernel.py").write_text(
        "import jax.numpy as jnp\n\ndef halves(x):\n    assert x.shape == (96, 96, 3) and x.dtype == 'float32'\n"
        "    return jnp.stack([x[:48].mean(), x[48:].mean()])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    pixels = photo(120, 110)
    got = run(pixels, plain(transform="halves_of_test_kernel:halves"))
    whole = run(pixels, plain(dtype="float32"))
    assert got.shape == (2,)
    assert np.allclose(got, [whole[:48].mean(), whole[48:].mean()], rtol=1e-4)


def test_a_compilation_per_scale_class_serves_all_picture_sizes() -> None:
    """Sizes and which rows are asked for never trace again."""
    preprocessor = Preprocessor(plain(), 4)
    out = np.empty((4, 96, 96, 3), np.uint8)
    for n, size in enumerate([*NEAR, *FAR]):
        preprocessor.load(n % 4, photo(*size))
        preprocessor.run(out, list(range(n % 4 + 1)))
    assert preprocessor.kernel.traces == preprocessor.kernel.compilations() == preprocessor.kernel.classes == 2


def test_rows_are_bitwise_the_same_in_any_company() -> None:
    """Batch size, position, neighbours and what lay there before do not change one bit of a row."""
    spec = plain(dtype="float32", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    pictures = [photo(*size, seed=n) for n, size in enumerate(NEAR)]
    alone = np.stack([run(picture, spec) for picture in pictures])
    for rows in (7, len(pictures)):
        preprocessor = Preprocessor(spec, rows)
        for start in range(0, len(pictures), rows):
            some = range(start, min(start + rows, len(pictures)))
            places = [(number * 5 + 3) % rows for number in some] if rows == 7 else [number - start for number in some]
            for number, place in zip(some, places, strict=True):
                preprocessor.load(place, pictures[number])
            out = np.empty((len(some), *spec.pixel_shape()), np.float32)
            preprocessor.run(out, places)
            assert out.tobytes() == alone[start : start + rows].tobytes()


def test_run_copies_only_the_rows_asked_for() -> None:
    """Rows come out in the order asked for, without gaps; the rest of `out` is left alone."""
    preprocessor = Preprocessor(plain(), 3)
    for row, level in enumerate((10, 20, 30)):
        preprocessor.load(row, np.full((96, 96), level, np.uint8))
    out = np.full((4, 96, 96, 3), 99, np.uint8)
    preprocessor.run(out, [2, 0])
    assert [int(row[0, 0, 0]) for row in out] == [30, 10, 99, 99]
    preprocessor.run(out, [])
    assert [int(row[0, 0, 0]) for row in out] == [30, 10, 99, 99]


def test_failed_row_leaves_its_neighbours_alone() -> None:
    """A row whose picture failed is harmless: nothing in the batch becomes NaN, and it may be filled again."""
    preprocessor = Preprocessor(plain(dtype="float32"), 2)
    preprocessor.load(0, photo(300, 5))
    preprocessor.load(1, photo(100, 100))
    expected = np.empty((1, 96, 96, 3), np.float32)
    preprocessor.run(expected, [1])
    with pytest.raises(ValueError, match="not a picture"):
        preprocessor.load(0, b"<html>")
    out = np.empty((2, 96, 96, 3), np.float32)
    preprocessor.run(out, [0, 1])
    assert np.isfinite(out).all()
    assert (out[1] == expected[0]).all()


def test_rows_are_loaded_by_several_threads_at_once() -> None:
    """Distinct rows from four threads hold what one thread would have put there, failures in between or not."""
    files = [encoded(photo(150 + 7 * n, 140, n), ("JPEG", "PNG", "WEBP")[n % 3]) for n in range(12)]
    preprocessor = Preprocessor(plain(), 24)

    def load(row: int) -> bool:
        try:
            preprocessor.load(row, files[row % 12] if row % 5 else files[row % 12][:500])
        except DecodeError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load, range(24)))
    assert loaded == [row % 5 != 0 for row in range(24)]
    rows = [row for row in range(24) if loaded[row]]
    out = np.empty((len(rows), 96, 96, 3), np.uint8)
    preprocessor.run(out, rows)
    for pixels, row in zip(out, rows, strict=True):
        assert (pixels == run(files[row % 12], plain())).all()


@pytest.mark.parametrize("out", [np.empty((1, 3, 96, 96), np.uint8), np.empty((1, 96, 96, 3), np.float32)])
def test_wrong_output_is_refused(out: npt.NDArray[Any]) -> None:
    """An output of another shape or dtype is an error, not a silent cast."""
    with pytest.raises(ValueError, match="rows are uint8"):
        preprocessor_for(plain()).run(out, [])


def test_earlier_results_survive_when_somebody_looks_at_them() -> None:
    """The kernel reuses its result's memory, but never under a view that is still held."""
    preprocessor = Preprocessor(plain(), 1)
    preprocessor.load(0, np.full((96, 96), 10, np.uint8))
    view = np.asarray(preprocessor.kernel(preprocessor._canvas, preprocessor._params, [0]))  # pyright: ignore[reportPrivateUsage]
    preprocessor.load(0, np.full((96, 96), 200, np.uint8))
    preprocessor.run(np.empty((1, 96, 96, 3), np.uint8), [0])
    assert (view == 10).all()


@pytest.mark.parametrize("shape", [(1,), (3, 5), (32, 464, 464, 3)])
def test_allocations_are_aligned(shape: tuple[int, ...]) -> None:
    """XLA reads a canvas in place only from a 64-byte boundary."""
    for _ in range(5):
        array = aligned(shape, np.uint8)
        assert array.ctypes.data % 64 == 0
        assert array.shape == shape
        assert not array.any()
