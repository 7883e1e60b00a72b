"""Good pictures of every mode, format and orientation arrive as upright sRGB uint8, scaled and composited.

Pictures here are as large as the target, so the canvas holds the decoded pixels themselves.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from penstock.errors import ConfigError, DecodeError, UnreadableError
from penstock.preprocess.decode.decode import Source, check_pillow, decode_into
from penstock.preprocess.decode.jpeg import check_decoder
from penstock.preprocess.kernel.canvas import Placement, make_canvas
from penstock.preprocess.spec import PreprocessSpec
from penstock.tests.drawn import SIZE, channels, encoded, gamma_profile, smooth

SPEC = PreprocessSpec(size=SIZE, resize=SIZE)
UInt8 = npt.NDArray[np.uint8]


def decode(source: Source, spec: PreprocessSpec = SPEC) -> tuple[UInt8, Placement]:
    """The valid piece of the canvas, and the placement."""
    canvas = make_canvas(spec, 1)[0]
    placed = decode_into(source, spec, canvas)
    width, height = (int(v) for v in placed.params[4:])
    return channels(canvas)[:height, :width], placed


def grey() -> Image.Image:
    return Image.fromarray(smooth()).convert("L")


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [("PNG", {}, 0), ("BMP", {}, 0), ("TIFF", {"compression": "tiff_lzw"}, 0), ("TIFF", {}, 0),
     ("WEBP", {"lossless": True}, 0), ("WEBP", {"quality": 95}, 12), ("JPEG", {"quality": 97}, 10),
     ("JPEG", {"quality": 97, "progressive": True}, 10), ("GIF", {}, 40)],
)  # fmt: skip
def test_each_format_gives_its_pixels(name: str, options: dict[str, Any], tolerance: int) -> None:
    """All six formats decode, with the format's own loss and no more."""
    pixels, placed = decode(encoded(Image.fromarray(smooth()), name, **options))
    assert (placed.width, placed.height, placed.format) == (SIZE, SIZE, name)
    assert np.abs(pixels.astype(int) - smooth()).max() <= tolerance


SOURCES: list[tuple[str, Callable[[bytes], Source]]] = [
    ("bytes", lambda b: b),
    ("bytearray", bytearray),
    ("memoryview", memoryview),
    ("writable view", lambda b: memoryview(bytearray(b))),
    ("pillow", lambda b: Image.open(io.BytesIO(b))),
]


@pytest.mark.parametrize(("kind", "make"), SOURCES, ids=[k for k, _ in SOURCES])
def test_each_kind_of_source_gives_the_same_pixels(kind: str, make: Callable[[bytes], Source]) -> None:
    """However the bytes come, the pixels are the same."""
    data = encoded(Image.fromarray(smooth()), "PNG")
    assert (decode(make(data))[0] == smooth()).all()


ARRAYS: list[tuple[str, npt.NDArray[Any], UInt8]] = [
    ("rgb", smooth(), smooth()),
    ("read only", np.frombuffer(smooth().tobytes(), np.uint8).reshape(SIZE, SIZE, 3), smooth()),
    ("flipped view", smooth()[::-1, ::-1], smooth()[::-1, ::-1]),
    ("grey", smooth()[:, :, 0], np.repeat(smooth()[:, :, :1], 3, 2)),
    ("grey with an axis", smooth()[:, :, :1], np.repeat(smooth()[:, :, :1], 3, 2)),
    ("bool", smooth() > 127, (smooth() > 127).astype(np.uint8) * np.uint8(255)),
    ("uint16", smooth().astype(np.uint16) * 257, smooth()),
    ("float 0..1", smooth() / 255, smooth()),
    ("float16 0..1", (smooth() / 255).astype(np.float16), smooth()),
    ("int64", smooth().astype(np.int64), smooth()),
    ("opaque rgba", np.dstack([smooth(), np.full((SIZE, SIZE), 255, np.uint8)]), smooth()),
]


@pytest.mark.parametrize(("kind", "array", "expected"), ARRAYS, ids=[k for k, _, _ in ARRAYS])
def test_arrays_of_each_kind_are_pictures(kind: str, array: npt.NDArray[Any], expected: UInt8) -> None:
    """Shapes and dtypes people have in memory are taken as they are meant."""
    pixels, placed = decode(array)
    assert (pixels == expected).all()
    assert placed.format == "array"


@pytest.mark.parametrize(
    ("array", "error"),
    [
        (np.zeros((0, 5, 3), np.uint8), UnreadableError),
        (np.zeros((5, 0), np.uint8), UnreadableError),
        (np.zeros((4, 4, 2), np.uint8), DecodeError),
        (np.zeros((3, 4, 5), np.uint8), DecodeError),
        (np.zeros(4, np.uint8), DecodeError),
        (np.zeros((1, 4, 4, 3), np.uint8), DecodeError),
        (np.zeros((4, 4, 3), np.complex64), DecodeError),
        (np.full((4, 4), "x"), DecodeError),
        (np.full((4, 4), None), DecodeError),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: npt.NDArray[Any], error: type[Exception]) -> None:
    """Empty, of a wrong shape, or not of numbers: an item error each."""
    with pytest.raises(error):
        decode(array)


def ramp16() -> npt.NDArray[np.uint16]:
    return np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(ramp16()), "PNG"),
        encoded(Image.fromarray(ramp16()), "TIFF"),
        encoded(Image.fromarray((ramp16() / 65535).astype(np.float32)), "TIFF"),
    ],
    ids=["16-bit PNG", "16-bit TIFF", "float TIFF"],
)
def test_16_bit_ramp_is_scaled_not_clipped(data: bytes) -> None:
    """A full ramp stays a ramp: Pillow's own conversion turns 99.6 % of it white."""
    pixels, _ = decode(data)
    assert (pixels == 255).mean() <= 0.008
    assert np.abs(pixels[:, :, 0].astype(float) - ramp16() / 257).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"])
def test_each_mode_becomes_rgb(mode: str) -> None:
    """Any of Pillow's modes gives three channels of uint8 that look like the picture."""
    image = Image.fromarray(smooth())
    source = image.convert("L").convert(mode) if mode in ("1", "LA", "PA", "I", "F") else image.convert(mode)
    # Pillow's own conversion to floats keeps 0..255.
    pixels, _ = decode(source, SPEC.replace(value_range=(0, 255)) if mode == "F" else SPEC)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    like = np.asarray(grey().convert("RGB") if mode in ("1", "L", "LA", "PA", "I", "F") else image).astype(float)
    blocks = (np.abs((pixels - like).reshape(4, 16, 4, 16, 3).mean((1, 3)))).max()
    assert blocks <= 25  # of 255: dithering and palettes are coarse, wrong conversions are far off


def test_hidden_colours_do_not_leak() -> None:
    """A fully transparent red pixel is background, not red."""
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[:, :, 0] = 255
    pixels, _ = decode(encoded(Image.fromarray(rgba), "PNG"))
    assert (pixels == 255).all()
    pixels, _ = decode(encoded(Image.fromarray(rgba), "PNG"), SPEC.replace(background=(1, 2, 3)))
    assert (pixels == (1, 2, 3)).all()


def test_alpha_is_composited_exactly() -> None:
    """Each pixel is the usual weighted mean, rounded."""
    rgba = np.dstack([smooth(), np.arange(SIZE * SIZE, dtype=np.uint32).reshape(SIZE, SIZE).astype(np.uint8)])
    background = np.array([10, 200, 30])
    alpha = rgba[:, :, 3:].astype(float) / 255
    expected = rgba[:, :, :3] * alpha + background * (1 - alpha)
    for source in (rgba, Image.fromarray(rgba), encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)):
        pixels, _ = decode(source, SPEC.replace(background=(10, 200, 30)))
        assert np.abs(pixels - expected).max() <= 0.51


def test_alpha_is_composited_before_reducing() -> None:
    """Colours hidden under transparency do not bleed into visible neighbours when a large picture is reduced."""
    rgba = np.zeros((6 * SIZE, 6 * SIZE, 4), np.uint8)
    rgba[:, ::2] = (0, 0, 0, 255)
    rgba[:, 1::2] = (255, 0, 0, 0)
    pixels, _ = decode(encoded(Image.fromarray(rgba), "PNG"), SPEC.replace(background=(0, 0, 0)))
    assert pixels.max() == 0


@pytest.mark.parametrize("kind", ["palette PNG", "GIF", "RGB key", "L key", "16-bit key"])
def test_transparent_colour_is_background(kind: str) -> None:
    """The older ways to say transparent count too."""
    spec = SPEC.replace(background=(7, 8, 9))
    cut = np.zeros((SIZE, SIZE), np.uint8)
    cut[:, SIZE // 2 :] = 1
    palette = Image.fromarray(cut)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    data = {
        "palette PNG": lambda: encoded(palette, "PNG", transparency=0),
        "GIF": lambda: encoded(palette, "GIF", transparency=0),
        "RGB key": lambda: encoded(palette.convert("RGB"), "PNG", transparency=(255, 0, 0)),
        "L key": lambda: encoded(Image.fromarray(cut * np.uint8(255)), "PNG", transparency=0),
        "16-bit key": lambda: encoded(Image.fromarray(cut.astype(np.uint16) * np.uint16(65535)), "PNG", transparency=0),
    }[kind]()
    pixels, _ = decode(data, spec)
    assert (pixels[:, : SIZE // 2] == (7, 8, 9)).all()
    assert not (pixels[:, SIZE // 2 :] == (7, 8, 9)).any()


@pytest.mark.parametrize(("name", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_wide_or_strange_profile_is_converted_to_srgb(name: str, options: dict[str, Any]) -> None:
    """Pixels follow ImageCms to within 2 of 255; without conversion they would be 40 off."""
    profile, image = gamma_profile(), Image.fromarray(smooth())
    reference = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    )
    expected = np.asarray(reference).astype(int)
    pixels, _ = decode(encoded(image, name, icc_profile=profile, **options))
    assert np.abs(pixels - expected).mean() <= 2
    assert np.abs(smooth() - expected).mean() > 20


def test_profile_counts_under_alpha_but_not_for_the_background() -> None:
    """Colours are converted before they are laid on a background that is sRGB already."""
    profile = gamma_profile()
    rgba = np.full((SIZE, SIZE, 4), 100, np.uint8)
    rgba[:, : SIZE // 2, 3], rgba[:, SIZE // 2 :, 3] = 0, 255
    spec = SPEC.replace(background=(100, 100, 100))
    pixels, _ = decode(encoded(Image.fromarray(rgba), "PNG", icc_profile=profile), spec)
    assert (pixels[:, 0] == 100).all()
    assert (pixels[:, -1] > 150).all()


def test_srgb_profile_changes_nothing() -> None:
    """The most common profile costs nothing and moves nothing."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (decode(encoded(Image.fromarray(smooth()), "PNG", icc_profile=profile))[0] == smooth()).all()


@pytest.mark.parametrize("profile", [b"not a profile", gamma_profile()[:200], b"\0" * 5_000_000])
def test_broken_profile_is_ignored(profile: bytes) -> None:
    """A picture does not die of its profile."""
    image = Image.fromarray(smooth())
    image.info["icc_profile"] = profile
    assert (decode(image)[0] == smooth()).all()


def test_profile_for_another_mode_is_ignored() -> None:
    """An RGB profile in a grey picture says nothing about grey."""
    image = grey()
    image.info["icc_profile"] = gamma_profile()
    assert (decode(image)[0][:, :, 0] == np.asarray(grey())).all()


def test_cmyk_without_a_profile_is_converted_naively() -> None:
    """The stated formula, through JPEG as Adobe writes it (inverted)."""
    image = Image.fromarray(smooth()).convert("CMYK")
    pixels, _ = decode(encoded(image, "JPEG", quality=98))
    c, k = np.asarray(image)[:, :, :3].astype(float), np.asarray(image)[:, :, 3:].astype(float)
    expected = (255 - c) * (255 - k) / 255
    assert np.abs(pixels - expected).mean() <= 2
    assert np.abs(pixels.astype(int) - smooth()).mean() <= 2


def test_cmyk_by_profile_follows_imagecms(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a profile that is used, pixels are ImageCms' own; named naive, they are the formula's.

    No CMYK profile ships with Pillow or this machine, so the transform is built by the test (LAB -> sRGB read as CMYK
    cannot be), and what is tested is that the embedded bytes, the mode and the choice reach it.
    """
    asked: list[tuple[bytes, str]] = []

    class Inverting:
        def apply(self, image: Image.Image) -> Image.Image:
            return Image.fromarray(255 - np.asarray(image)[:, :, :3])

    def find(profile: bytes, mode: str) -> Inverting:
        asked.append((profile, mode))
        return Inverting()

    monkeypatch.setattr("penstock.preprocess.decode.color._transform", find)
    image = Image.fromarray(smooth()).convert("CMYK")
    image.info["icc_profile"] = b"press"
    by_profile, _ = decode(image)
    naive, _ = decode(image, SPEC.replace(cmyk="naive"))
    assert asked == [(b"press", "CMYK")]
    assert (by_profile == 255 - np.asarray(image)[:, :, :3]).all()
    assert np.abs(naive.astype(int) - smooth()).max() <= 2


def stored_as(upright: UInt8, turn: int) -> Image.Image:
    """The pixels a file with this orientation holds; checked against Pillow's own exif_transpose below."""
    inverse = {6: 8, 8: 6}.get(turn, turn)
    tagged = Image.fromarray(upright)
    tagged.getexif()[0x0112] = inverse
    return ImageOps.exif_transpose(tagged)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, 97)])
def test_orientations_come_out_upright(turn: int, name: str, shape: tuple[int, int]) -> None:
    """The same upright picture from each of the 8 orientations, in each format that has them."""
    spec = PreprocessSpec(size=SIZE, resize=SIZE)
    upright = smooth(shape[1], shape[0])
    exif = Image.Exif()
    exif[0x0112] = turn
    losses: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    options = losses.get(name, {})
    pixels, placed = decode(encoded(stored_as(upright, turn), name, exif=exif, **options), spec)
    assert (placed.width, placed.height) == (shape[1], shape[0])
    expected, same = decode(upright, spec)
    assert placed.params == same.params
    assert np.abs(pixels.astype(int) - expected).mean() <= 2


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_orientations_of_reduced_pictures_come_out_upright(turn: int, name: str) -> None:
    """Reduced on sides that the factor does not divide: the sampling grid still names the same upright pixels.

    Read off the canvas at the grid's own centres, so a grid that is one reduced pixel off (2 to 3 of 255) is seen.
    """
    upright = smooth(5 * SIZE + 3, 7 * SIZE + 5)
    exif = Image.Exif()
    exif[0x0112] = turn
    options: dict[str, Any] = {"JPEG": {"quality": 98}}.get(name, {})
    canvas = make_canvas(SPEC, 1)[0]
    placed = decode_into(encoded(stored_as(upright, turn), name, exif=exif, **options), SPEC, canvas)
    seen = channels(canvas).astype(float)
    x0, y0, sx, sy, w, h = placed.params
    x = np.clip(x0 + (np.arange(SIZE) + 0.5) * sx - 0.5, 0, w - 1)
    y = np.clip(y0 + (np.arange(SIZE) + 0.5) * sy - 0.5, 0, h - 1)
    red = np.interp(x, np.arange(w), seen[int(h) // 2, : int(w), 0])
    green = np.interp(y, np.arange(h), seen[: int(h), int(w) // 2, 1])
    offset = round((int(SIZE * upright.shape[0] / upright.shape[1]) - SIZE) / 2)
    centre = (np.arange(SIZE) + 0.5) * upright.shape[1] / SIZE - 0.5
    row = (np.arange(SIZE) + 0.5 + offset) * upright.shape[0] / int(SIZE * upright.shape[0] / upright.shape[1]) - 0.5
    for error in (red - 255 * centre / (upright.shape[1] - 1), green - 255 * row / (upright.shape[0] - 1)):
        assert abs(error[2:-2].mean()) <= 0.5
        assert np.abs(error[2:-2]).max() <= 2


@pytest.mark.parametrize("value", [0, 9, 77, "up"])
def test_impossible_orientation_is_ignored(value: Any) -> None:
    """A picture does not die of its metadata."""
    image = Image.fromarray(smooth())
    image.getexif()[0x0112] = value
    assert (decode(image)[0] == smooth()).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored() -> None:
    """Bytes that are no EXIF do not stop a JPEG."""
    data = encoded(Image.fromarray(smooth()), "JPEG", quality=97, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert np.abs(decode(data)[0].astype(int) - smooth()).max() <= 10


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_is_used(name: str) -> None:
    """One frame is decoded, the first."""
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options: dict[str, Any] = {"lossless": True} if name == "WEBP" else {}
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:], duration=100, **options)
    pixels, _ = decode(data)
    assert (pixels == (255, 0, 0)).all()


def test_first_page_of_a_tiff_is_used() -> None:
    """A scanned document's first page stands for it."""
    pages = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    pixels, _ = decode(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert (pixels == (255, 0, 0)).all()


def test_given_pictures_are_left_as_they_were() -> None:
    """A user's array or Pillow picture is read, never changed."""
    array = smooth(300, 200)
    image = Image.fromarray(array).convert("RGBA")
    image.getexif()[0x0112] = 6
    for source in (array, image):
        decode(source)
    assert (array == smooth(300, 200)).all()
    assert image.size == (300, 200)
    assert image.getexif()[0x0112] == 6
    assert (np.asarray(image)[:, :, :3] == array).all()


@pytest.mark.parametrize("size", [(SIZE, SIZE), (500, 375), (3000, 2000), (375, 500)])
@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 90, "progressive": True, "subsampling": 0}])
def test_simplejpeg_gives_pillows_pixels(size: tuple[int, int], options: dict[str, Any]) -> None:
    """The fast decoder is a matter of speed: the grid is equal and pixels are within rounding."""
    pytest.importorskip("simplejpeg")
    data = encoded(Image.fromarray(smooth(*size)), "JPEG", **options)
    ours, placed = decode(data)
    fast, same = decode(data, SPEC.replace(decoder="simplejpeg"))
    assert placed == same
    assert np.abs(ours.astype(int) - fast).max() <= 2


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_simplejpeg_leaves_what_it_cannot_to_pillow(mode: str) -> None:
    """Grey and CMYK JPEG come out the same whichever decoder was asked for."""
    data = encoded(Image.fromarray(smooth()).convert(mode), "JPEG", quality=95)
    assert (decode(data)[0] == decode(data, SPEC.replace(decoder="simplejpeg"))[0]).all()


def test_process_that_accepts_broken_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOAD_TRUNCATED_IMAGES makes cut files silently wrong, so work does not start with it on."""
    check_pillow()
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ConfigError, match="LOAD_TRUNCATED_IMAGES"):
        check_pillow()


def test_text_chunks_do_not_matter() -> None:
    """Comments in a PNG are carried by it, not read by us."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "<script>" * 100)
    assert (decode(encoded(Image.fromarray(smooth()), "PNG", pnginfo=info))[0] == smooth()).all()


def test_decoder_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name and not there: an error with the way out, not a slow job."""
    monkeypatch.setattr("penstock.preprocess.decode.jpeg._simplejpeg", lambda: None)
    check_decoder(SPEC)
    with pytest.raises(ConfigError, match=r"penstock\[jpeg\]"):
        check_decoder(SPEC.replace(decoder="simplejpeg"))
