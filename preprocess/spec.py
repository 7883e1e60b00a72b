"""What a worker makes of a picture: one frozen value that is checked once and travels as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from ..errors import ConfigError
from ..lazy import is_import_name
from ..picture_formats import FORMATS

if TYPE_CHECKING:
    import numpy as np

Interpolation = Literal["bicubic", "bilinear"]
Dtype = Literal["float32", "float16", "uint8"]
Layout = Literal["NCHW", "NHWC"]
Cmyk = Literal["profile", "naive"]
CropRounding = Literal["round", "floor"]
Decoder = Literal["pillow", "simplejpeg"]
Triple = tuple[float, float, float]

MIN_SIZE: Final = 16
MAX_SIZE: Final = 1024

MAX_PIXELS: Final = 2**32
MAX_SIDE: Final = 2**20

PIXELS_VERSION: Final = 2
"""Kept with jobs and collections: raise it when the same settings begin to make other pixels (docs/usage.md, "Versions
of the pixels")."""


@dataclasses.dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How one picture becomes one row of a batch.

    The order of operations is torchvision's: upright by EXIF, to sRGB, alpha composited on `background`, antialiased
    resize of the shorter side to `resize`, centre crop of `size`, then ``(pixel / 255 - mean) / std``. Large pictures
    are brought near the target by the decoder first (JPEG scaling, box means), so pixels match a Pillow resize of the
    full-size picture, on the scale of 0..255, within

    * a mean of 0.25 and a maximum of 12 when nothing was reduced, that is up to twice the target (what is left is
      Pillow's rounding and clipping between its two passes),
    * a mean of 1.5 and a maximum of 40 when the decoder reduced a photograph first.

    Attributes:
        size: Side of the square that comes out, in pixels, 16..1024.
        resize: Length in pixels to which the shorter side is resized before the centre crop, at least `size`.
            None: no crop, the whole picture is squashed to `size` x `size`.
        interpolation: The filter, with Pillow's coefficients (bicubic: a = -0.5) and antialiasing.
        mean: Per channel, on the scale of 0..1, subtracted. None with `std` None: no normalization, pixels are 0..255.
        std: Per channel, on the scale of 0..1, divided by.
        dtype: What comes out. uint8 is rounded to nearest and never normalized (leave that to the model's server).
        layout: "NCHW" gives rows of ``(3, size, size)``, "NHWC" of ``(size, size, 3)``.
        background: Red, green, blue of 0..255 under transparent pixels.
        value_range: The samples that become 0 and 255, where samples are not of 8 bits: grey files of 16 or 32 bits and
            of floats, arrays of any type but uint8 and bool. What lies beyond is clipped. None: by the type. 0..1 for
            floats, 0..65535 for uint16 (fewer where a TIFF says so), 0..255 for other integers; samples a little
            beyond are clipped, and a picture with samples far beyond is refused.
        cmyk: "profile" converts by the embedded ICC profile (naively where there is none), "naive" always by
            ``(255 - c) * (255 - k) / 255``.
        max_pixels: A picture whose header promises more is refused before anything is decoded; 1..2**32. Of a JPEG
            that is decoded at 1/2 to 1/8 of its size those pixels count (all of them where it is progressive: then it
            is held whole).
        max_side: The same for its longer side, in pixels, 1..2**20.
        max_file_bytes: The same for its file, in bytes.
        formats: The formats that may be decoded, a subset of `FORMATS`.
        crop_rounding: Where an odd margin goes: "round" as torchvision does, "floor" as Hugging Face's processors do.
        transform: "module:function" of a JAX function of your own. It takes one picture, float32
            ``[size, size, 3]`` of 0..255, and returns an array of a fixed shape; it replaces normalization, `dtype` and
            `layout`.
        decoder: "pillow", or "simplejpeg" (an extra, faster for JPEG; Pillow still does what it cannot).

    Raises:
        ConfigError: A field is out of its range; the message names it.
    """

    size: int = 224
    resize: int | None = 224
    interpolation: Interpolation = "bicubic"
    mean: Triple | None = None
    std: Triple | None = None
    dtype: Dtype = "float32"
    layout: Layout = "NCHW"
    background: tuple[int, int, int] = (255, 255, 255)
    value_range: tuple[float, float] | None = None
    cmyk: Cmyk = "profile"
    max_pixels: int = 64_000_000
    max_side: int = 32_768
    max_file_bytes: int = 512 * 2**20
    formats: tuple[str, ...] = FORMATS
    crop_rounding: CropRounding = "round"
    transform: str | None = None
    decoder: Decoder = "pillow"

    def __post_init__(self) -> None:
        for name in ("mean", "std", "background", "value_range", "formats"):  # JSON and YAML give lists
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        _check(self)

    @property
    def channels(self) -> int:
        """Colour channels of a row: always 3."""
        return 3

    def pixel_shape(self) -> tuple[int, ...]:
        """Shape of one row of the batch.

        With a `transform` this imports it and traces it by `jax.eval_shape`, so ask in a worker.

        Raises:
            ConfigError: The transform cannot be imported or traced.
        """
        if self.transform is None:
            return (3, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, 3)
        from .transforms import output_of

        return output_of(self.transform, self.size)[0]

    def pixel_dtype(self) -> np.dtype[Any]:
        """Numpy dtype of one row of the batch; with a `transform` the same caution as for `pixel_shape` applies.

        Raises:
            ConfigError: The transform cannot be imported or traced.
        """
        if self.transform is None:
            import numpy as np

            return np.dtype(self.dtype)
        from .transforms import output_of

        return output_of(self.transform, self.size)[1]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is its inverse."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: A key is not known or a value is out of its range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ConfigError(f"no such field: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**data)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed.

        Raises:
            ConfigError: A key is not known or a value is out of its range.
        """
        return self.from_json({**self.to_json(), **changes})

    def fingerprint(self) -> str:
        """16 hex digits that change when the settings do: kept with a job, which refuses to resume with another."""
        text = json.dumps({"pixels": PIXELS_VERSION, **self.to_json()}, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check(spec: PreprocessSpec) -> None:
    _integer("size", spec.size, MIN_SIZE, MAX_SIZE)
    if spec.resize is not None:
        # A shorter side below the crop would need padding, which no preset asks for.
        _integer("resize", spec.resize, spec.size, 4 * spec.size)
    _choice("interpolation", spec.interpolation, get_args(Interpolation))
    _choice("dtype", spec.dtype, get_args(Dtype))
    _choice("layout", spec.layout, get_args(Layout))
    _choice("cmyk", spec.cmyk, get_args(Cmyk))
    _choice("crop_rounding", spec.crop_rounding, get_args(CropRounding))
    _choice("decoder", spec.decoder, get_args(Decoder))
    _integer("max_pixels", spec.max_pixels, 1, MAX_PIXELS)
    _integer("max_side", spec.max_side, 1, MAX_SIDE)
    _integer("max_file_bytes", spec.max_file_bytes, 1, 2**40)
    _check_normalization(spec)
    _check_background(spec.background)
    _check_value_range(spec.value_range)
    _check_formats(spec.formats)
    _check_transform(spec.transform)


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}: {value!r} must be an integer of {low}..{high}")


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}: {value!r} must be one of {', '.join(allowed)}")


def _check_normalization(spec: PreprocessSpec) -> None:
    if (spec.mean is None) != (spec.std is None):
        raise ConfigError("mean: mean and std go together: give both or neither")
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if values is not None and not _triple(values):
            raise ConfigError(f"{name}: {values!r} must be three finite numbers on the scale of 0..1")
    if spec.std is not None and min(spec.std) <= 0:
        raise ConfigError(f"std: {spec.std!r} must be above 0")


def _triple(values: object) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == 3
        and all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)
    )


def _check_background(background: object) -> None:
    if not (_triple(background) and all(isinstance(v, int) and 0 <= v <= 255 for v in background)):  # type: ignore[attr-defined]
        raise ConfigError(f"background: {background!r} must be three integers of 0..255 (red, green, blue)")


def _check_value_range(span: object) -> None:
    match span:
        case None:
            return
        case (int() | float() as black, int() | float() as white) if -math.inf < black < white < math.inf:
            return
        case _:
            raise ConfigError(f"value_range: {span!r} must be two finite numbers, black below white")


def _check_formats(formats: object) -> None:
    if not isinstance(formats, tuple) or not formats or not set(formats) <= set(FORMATS):
        raise ConfigError(f"formats: {formats!r} must be some of {', '.join(FORMATS)}")


def _check_transform(transform: object) -> None:
    if transform is None:
        return
    if not (isinstance(transform, str) and is_import_name(transform)):
        raise ConfigError(f"transform: {transform!r} must be 'module:function'")
