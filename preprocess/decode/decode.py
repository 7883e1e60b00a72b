"""One picture, from whatever it is given as, into its canvas. Every way it can fail is an `ItemError`.

The order that makes it cheap and safe: signature, size limits by the header, reduce while decoding (JPEG), flatten to 8
bits, reduce by box means, colours, turn upright, copy the box the filter reads.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ...errors import ConfigError, DecodeError, ItemError, TooLargeError, UnreadableError
from ...fetch import read_file
from ..kernel.canvas import Placement, blit
from ..kernel.geometry import grid_for, reduction
from ..kernel.packed import UInt32, pack, pack_array, unpack
from ..spec import PreprocessSpec
from .color import to_rgb
from .exif import Orientation, orientation_of
from .headers import check_format, refusal, webp_size
from .jpeg import draft_factor, fast_jpeg, is_held_whole, load
from .modes import bands, flatten, sample_range, without_unused_alpha
from .value_ranges import Range, to_uint8

_T = TypeVar("_T")

PLUGINS: Final[Mapping[str, Callable[[io.BytesIO, str], ImageFile.ImageFile]]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
"""Asked by name: ``Image.open`` has a limit of pixels of its own, which does not know that a JPEG will be reduced, and
it hides what a plugin says behind "cannot identify image file" and an address."""

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | npt.NDArray[Any] | Image.Image
"""A path, the bytes of a file, an array ``[h, w]`` or ``[h, w, 1 | 3 | 4]``, or a Pillow picture."""


def check_pillow() -> None:
    """Refuse a process in which Pillow was told to accept broken files.

    Raises:
        ConfigError: `ImageFile.LOAD_TRUNCATED_IMAGES` is on. (It made 1,925 of 5,981 hostile files "decode".)
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ConfigError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on: cut files would become silently wrong pictures")


def bound_pillow(max_pixels: int) -> None:
    """For a process of our own: what Pillow checks itself is held to `max_pixels`, and refused, not warned of.

    Every header is checked before pixels are made. This is the second line, for sizes that a plugin finds later. After
    `prepare_jax`, which silences Pillow's warnings.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def decode_into(source: Source, spec: PreprocessSpec, canvas: UInt32) -> Placement:
    """Decode one picture into its canvas.

    Args:
        source: See `Source`. Pictures and arrays are only read.
        spec: What to make of it.
        canvas: uint32 ``[c, c]`` with ``c = canvas_side(spec)``; written, and half-written after an error.

    Raises:
        ReadError: The path cannot be read.
        UnreadableError: Not a picture.
        TruncatedError: It ends too early.
        UnsupportedFormatError: Its format is not allowed.
        TooLargeError: More pixels, or a longer side, or a larger file than allowed.
        DecodeError: Anything else its decoder says.
    """
    if isinstance(source, np.ndarray):
        return guarded("array", b"", lambda: _place_array(source, spec, canvas))
    if isinstance(source, Image.Image):
        return guarded("image", b"", lambda: _place_image(source, "image", spec, canvas))
    data = (
        source
        if isinstance(source, (bytes, bytearray, memoryview))
        else read_file(os.fspath(source), spec.max_file_bytes)
    )
    return _decode_bytes(data, spec, canvas)


def _decode_bytes(source: bytes | bytearray | memoryview, spec: PreprocessSpec, canvas: UInt32) -> Placement:
    data = source if isinstance(source, bytes) else bytes(source)  # BytesIO shares the memory of bytes only
    name = check_format(data, spec.formats)
    if name == "WEBP" and (promised := webp_size(data)):
        check_size(*promised, spec)

    def place() -> Placement:
        # Only the plugin whose signature was found may look at the data.
        with PLUGINS[name](io.BytesIO(data), "") as image:
            return _place_image(image, name, spec, canvas, data)

    return guarded(name, data, place)


def guarded(name: str, data: bytes, decode: Callable[[], _T]) -> _T:
    """Run what decodes something.

    Args:
        name: Of its format, or kind.
        data: Its file, as far as there is one.
        decode: Whatever it raises is an error of this picture.

    Raises:
        ItemError: As `decode_into` has them.
    """
    try:
        return decode()
    except ItemError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = "PIL.Image.MAX_IMAGE_PIXELS of this process is the limit; in worker processes it is max_pixels"
        raise TooLargeError(f"{name}: {error} ({limit})") from error
    except Exception as error:
        # Plugins were seen to raise nine classes, among them ValueError, SyntaxError, IndexError, OverflowError and
        # MemoryError, beside OSError: one bad file must never cost its neighbours.
        raise refusal(name, data, error) from error


def check_size(width: int, height: int, spec: PreprocessSpec, factor: int = 1, part: str = "") -> None:
    """Refuse what would be too large in memory, at 1/`factor` of its sides.

    Raises:
        TooLargeError: It would.
        UnreadableError: There is nothing.
    """
    if width < 1 or height < 1:
        raise UnreadableError(f"an empty picture of {width} x {height} pixels")
    decoded = f"{part}{width} x {height} pixels" + (f", decoded at 1/{factor}," if factor > 1 else "")
    width, height = -(-width // factor), -(-height // factor)
    if max(width, height) > spec.max_side:
        raise TooLargeError(f"{decoded}: a side is over max_side={spec.max_side}")
    if width * height > spec.max_pixels:
        raise TooLargeError(f"{decoded}: {width * height} pixels are over max_pixels={spec.max_pixels}")


def check_tile(image: TiffImagePlugin.TiffImageFile, spec: PreprocessSpec) -> None:
    """Refuse a tile that is too large: libtiff holds a tile whole, however little of it the picture needs.

    Raises:
        TooLargeError: It is.
    """
    width, height = image.tag_v2.get(TiffImagePlugin.TILEWIDTH), image.tag_v2.get(TiffImagePlugin.TILELENGTH)
    if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
        check_size(width, height, spec, part="a tile of ")


def _place_array(array: npt.NDArray[Any], spec: PreprocessSpec, canvas: UInt32) -> Placement:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise DecodeError(f"array of shape {array.shape} is not a picture; give [h, w] or [h, w, 1 | 3 | 4]")
    height, width = array.shape[:2]
    check_size(width, height, spec)
    pixels = to_uint8(array, spec.value_range)
    grid = grid_for(width, height, spec)
    has_alpha = pixels.ndim == 3 and pixels.shape[2] == 4
    if has_alpha or reduction(max(grid.sx, grid.sy), spec.size) > 1:
        return _place_image(Image.fromarray(np.ascontiguousarray(pixels)), "array", spec, canvas)
    return Placement(blit(pack_array(pixels), grid, spec, canvas), width, height, "array")


def _place_image(image: Image.Image, name: str, spec: PreprocessSpec, canvas: UInt32, data: bytes = b"") -> Placement:
    stored = image.size  # TIFF answers its upright size and turns itself while loading
    factor = draft_factor(*stored, spec) if name == "JPEG" else 1
    check_size(*stored, spec, 1 if factor > 1 and is_held_whole(data) else factor)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        check_tile(image, spec)
    pixels = fast_jpeg(image, data, factor) if name == "JPEG" and spec.decoder == "simplejpeg" else None
    if pixels is None:
        load(image, factor, spec)
    orientation = Orientation(orientation_of(image), stored)
    grid = grid_for(*orientation.upright, spec)
    fx, fy = (reduction(s / factor, spec.size) for s in orientation.stored_axes(grid.sx, grid.sy))
    if pixels is None or fx * fy > 1:
        pixels = _shrunk(image if pixels is None else unpack(pixels), fx, fy, spec)
    upright = orientation.apply(pixels, grid, factor * fx, factor * fy)
    return Placement(blit(*upright, spec, canvas), *orientation.upright, name)


def _shrunk(image: Image.Image, fx: int, fy: int, spec: PreprocessSpec) -> UInt32:
    """The whole picture reduced, as packed pixels. Band by band: what is on the way is much larger than what comes."""
    span, image = sample_range(image, spec), without_unused_alpha(image)
    pieces = [_piece(band, fx, fy, spec, span) for band in bands(image, fy)]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _piece(image: Image.Image, fx: int, fy: int, spec: PreprocessSpec, span: Range | None) -> UInt32:
    profile = image.info.get("icc_profile")
    image, converted = flatten(image, spec, span)
    if fx * fy > 1:
        image = image.reduce((fx, fy))
    # Colours come last because they are the dearest per pixel; the means were taken in the source's own space.
    return pack(image if converted else to_rgb(image, profile, spec.cmyk))
