"""The preprocessing specification: what it accepts, how it travels, and the presets' numbers."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import ConfigError
from penstock.picture_formats import FORMATS
from penstock.preprocess.kernel.geometry import canvas_side, grid_for, reduction, resized_size, scale_limit, span
from penstock.preprocess.presets import PRESETS, preset
from penstock.preprocess.spec import PreprocessSpec

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("size", {"size": 8, "resize": 8}),
    ("size", {"size": 2000, "resize": 2000}),
    ("size", {"size": 224.0}),
    ("size", {"size": True}),
    ("resize", {"size": 224, "resize": 200}),
    ("resize", {"resize": "256"}),
    ("interpolation", {"interpolation": "lanczos"}),
    ("mean", {"mean": (0.5, 0.5, 0.5)}),
    ("std", {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5)}),
    ("mean", {"mean": (0.5, 0.5, float("nan")), "std": (1.0, 1.0, 1.0)}),
    ("std", {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.0, 0.5)}),
    ("dtype", {"dtype": "bfloat16"}),
    ("layout", {"layout": "CHWN"}),
    ("background", {"background": (0, 0, 256)}),
    ("background", {"background": (0.5, 0.5, 0.5)}),
    ("cmyk", {"cmyk": "magic"}),
    ("max_pixels", {"max_pixels": 0}),
    ("max_pixels", {"max_pixels": 2**32 + 1}),
    ("max_side", {"max_side": -1}),
    ("max_file_bytes", {"max_file_bytes": 0}),
    ("formats", {"formats": ("JPEG", "EPS")}),
    ("formats", {"formats": ()}),
    ("formats", {"formats": "JPEG"}),
    ("crop_rounding", {"crop_rounding": "up"}),
    ("transform", {"transform": "no_colon"}),
    ("transform", {"transform": "os:system('x')"}),
    ("decoder", {"decoder": "opencv"}),
]


@pytest.mark.parametrize(("field", "settings"), REFUSED, ids=[f"{f}-{i}" for i, (f, _) in enumerate(REFUSED)])
def test_wrong_setting_is_refused_by_name(field: str, settings: dict[str, Any]) -> None:
    """Each field out of its range gives a ConfigError that names it."""
    with pytest.raises(ConfigError, match=field):
        PreprocessSpec(**settings)


@pytest.mark.parametrize("spec", [PreprocessSpec(), *PRESETS.values(), PreprocessSpec(formats=("PNG",), resize=None)])
def test_json_round_trip_keeps_the_value_and_its_fingerprint(spec: PreprocessSpec) -> None:
    """What was written to JSON text comes back equal, hashable, and with the same fingerprint."""
    again = PreprocessSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.fingerprint() == spec.fingerprint()


def test_unknown_json_field_is_refused_by_name() -> None:
    """A key of a later version, or a typing error, is not dropped silently."""
    with pytest.raises(ConfigError, match="interpolaton"):
        PreprocessSpec.from_json({"interpolaton": "bicubic"})


def test_fingerprint_changes_with_every_field() -> None:
    """No field is left out of the fingerprint."""
    other = PreprocessSpec(
        size=225, resize=300, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(0.1, 0.2, 0.3), dtype="uint8",
        layout="NHWC", background=(0, 0, 0), cmyk="naive", max_pixels=1, max_side=1, max_file_bytes=1,
        formats=("PNG",), crop_rounding="floor", transform="a:b", decoder="simplejpeg", value_range=(0, 1),
    )  # fmt: skip
    base = PreprocessSpec(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize=256)
    seen = {base.fingerprint()}
    for field in dataclasses.fields(PreprocessSpec):
        value = getattr(other, field.name)
        assert value != getattr(base, field.name), field.name
        seen.add(base.replace(**{field.name: value}).fingerprint())
    assert len(seen) == len(dataclasses.fields(PreprocessSpec)) + 1


def test_preset_unknown_name_lists_the_known_ones() -> None:
    """The error says what there is."""
    with pytest.raises(ConfigError, match="clip, dinov2, imagenet, siglip"):
        preset("resnet")


def test_preset_size_takes_resize_along() -> None:
    """Another size keeps the crop's share of the picture; a given resize wins; a squash stays one."""
    assert preset("imagenet", size=112).resize == 128
    assert preset("clip", size=336).resize == 336
    assert preset("imagenet", size=112, resize=112).resize == 112
    assert preset("siglip", size=384).resize is None


def test_preset_wrong_override_is_a_config_error() -> None:
    """An override goes through the same checks as any field."""
    with pytest.raises(ConfigError, match="dtype"):
        preset("clip", dtype="int8")
    with pytest.raises(ConfigError, match="colour"):
        preset("clip", colour="red")


def test_pixel_shape_follows_layout() -> None:
    """Rows are channels first or last."""
    assert PreprocessSpec(layout="NCHW").pixel_shape() == (3, 224, 224)
    assert PreprocessSpec(layout="NHWC").pixel_shape() == (224, 224, 3)
    assert PreprocessSpec(dtype="float16").pixel_dtype() == np.float16


def test_transform_decides_shape_and_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's function is traced, not run, to learn what it makes."""
    (tmp_path / "grey_transform_of_test_spec.py").write_text("def grey(x):\n    return x.mean(-1).astype('uint8')\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = PreprocessSpec(size=32, resize=32, transform="grey_transform_of_test_spec:grey")
    assert spec.pixel_shape() == (32, 32)
    assert spec.pixel_dtype() == np.uint8
    sys.modules.pop("grey_transform_of_test_spec")


@pytest.mark.parametrize("name", ["no_such_module_at_all:f", "json:no_such_function", "json:decoder"])
def test_transform_that_cannot_be_had_is_a_config_error(name: str) -> None:
    """Not importable, not there, not a function: the message names the transform."""
    with pytest.raises(ConfigError, match=name):
        PreprocessSpec(transform=name).pixel_shape()


def test_transform_that_cannot_be_traced_is_a_config_error() -> None:
    """A function that is not JAX is found out before the job starts."""
    with pytest.raises(ConfigError, match="cannot be traced"):
        PreprocessSpec(transform="json:dumps").pixel_shape()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((500, 375), (298, 224)), ((375, 500), (224, 298)), ((1, 1000), (224, 224000)), ((224, 224), (224, 224))],
)
def test_resized_size_rounds_the_longer_side_down(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """torchvision's int(target * long / short)."""
    assert resized_size(*size, PreprocessSpec()) == expected


@pytest.mark.parametrize(("rounding", "left"), [("round", 38), ("floor", 37)])
def test_odd_margin_goes_where_the_reference_puts_it(rounding: Any, left: int) -> None:
    """A margin of 75: torchvision rounds 37.5 to 38, Hugging Face floors it to 37."""
    spec = PreprocessSpec(crop_rounding=rounding)
    grid = grid_for(299, 224, spec)
    assert (grid.x0, grid.y0, grid.sx, grid.sy) == (left, 0, 1, 1)


@pytest.mark.parametrize("size", [16, 17, 224, 1000, 1024])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_any_reduced_picture_fits_its_canvas(size: int, interpolation: Any) -> None:
    """Whatever the picture's shape, reduction leaves a piece that fits, and scales the kernel was made for."""
    for resize in (None, size, size + 1, 2 * size):
        spec = PreprocessSpec(size=size, resize=resize, interpolation=interpolation)
        for width in (1, 3, size - 1, size, 2 * size - 1, 2 * size, 2 * size + 3, 3 * size, 7 * size + 1, 30_000):
            for height in (1, size, 2 * size, 2 * size + 1, 5 * size - 1, 30_000):
                grid = grid_for(width, height, spec)
                for start, scale, limit in ((grid.x0, grid.sx, width), (grid.y0, grid.sy, height)):
                    factor = reduction(scale, size)
                    assert scale / factor <= scale_limit(size)
                    first, last = span(start / factor, scale / factor, spec, -(-limit // factor))
                    assert 0 < last - first <= canvas_side(spec)


def test_formats_are_the_six_that_are_safe() -> None:
    """The allow-list is a security decision: it does not grow by accident."""
    assert FORMATS == ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
