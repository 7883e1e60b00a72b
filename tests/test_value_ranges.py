"""What is black and what is white follows from the type of the samples, never from one sample of a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from penstock import ConfigError
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.common.provenance import plan_of, recipe_of
from penstock.errors import DecodeError
from penstock.preprocess.decode.decode import Source, decode_into
from penstock.preprocess.decode.value_ranges import to_uint8
from penstock.preprocess.kernel.canvas import make_canvas
from penstock.preprocess.spec import PreprocessSpec
from penstock.sinks import read_dead_letters
from penstock.tests.drawn import SIZE, channels, encoded, smooth, tiff

SPEC = PreprocessSpec(size=SIZE, resize=SIZE)
Samples = npt.NDArray[Any]


def decode(source: Source, value_range: tuple[float, float] | None = None) -> npt.NDArray[np.uint8]:
    canvas = make_canvas(SPEC, 1)[0]
    decode_into(source, SPEC.replace(value_range=value_range), canvas)
    return channels(canvas)[:SIZE, :SIZE]


def with_one(samples: Samples, value: float) -> Samples:
    changed = samples.copy()
    changed[0, 0] = value
    return changed


def as_tiff(samples: Samples) -> bytes:
    return encoded(Image.fromarray(samples[:, :, 0]), "TIFF")


UNIT = (smooth() / 255).astype(np.float32)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("overshoot", [1.004, 1.3, -0.2])
def test_a_float_over_the_edge_is_clipped_and_changes_no_other(kind: Any, overshoot: float) -> None:
    """A cubic resize leaves such samples: the picture stays what it is."""
    expected = decode(UNIT.astype(kind))
    assert np.abs(expected.astype(int) - smooth()).max() <= 1
    pixels = decode(with_one(UNIT.astype(kind), overshoot))
    assert (pixels[1:] == expected[1:]).all()
    assert (pixels[0, 0] == (255 if overshoot > 1 else 0)).all()


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, np.uint32, "<i8", ">i4"])
@pytest.mark.parametrize("overshoot", [256, 300])
def test_an_integer_over_the_edge_is_clipped_and_changes_no_other(kind: Any, overshoot: int) -> None:
    """What arithmetic on bytes leaves is 0..255, whatever it is kept in."""
    samples = smooth().astype(kind)
    pixels = decode(with_one(samples, overshoot))
    assert (pixels[1:] == smooth()[1:]).all()
    assert (pixels[0, 0] == 255).all()


def test_sixteen_bits_are_sixteen_bits_however_dark() -> None:
    """Also in the byte order of FITS and DICOM readers, also where no sample is over 255."""
    dark = smooth().astype(np.uint16)
    for order in ("<u2", ">u2"):
        assert (decode(dark.astype(order)) == np.rint(dark / 257)).all()


FAR_OFF: list[tuple[str, Samples, str]] = [
    ("floats of 0..255", smooth().astype(np.float32), r"0 to 255.*0\.\.1 .*value_range.*--value-range"),
    ("floats after normalization", (UNIT - 0.45) / 0.22, "value_range"),
    ("16 bits in 32", smooth().astype(np.int32) * 257, r"0 to 65535.*0\.\.255 .*value_range"),
    ("signed", smooth().astype(np.int16) - 1000, "value_range"),
    ("not a number", with_one(UNIT, np.nan), "NaN"),
    ("infinite", with_one(UNIT, np.inf), "infinite"),
]


@pytest.mark.parametrize(("kind", "samples", "says"), FAR_OFF, ids=[kind for kind, _, _ in FAR_OFF])
def test_what_is_plainly_of_another_range_is_refused(kind: str, samples: Samples, says: str) -> None:
    """With both ranges and the knob, as an array and as a TIFF. Guessing would be silent."""
    with pytest.raises(DecodeError, match=says):
        decode(samples)
    with pytest.raises(DecodeError, match=says):
        decode(as_tiff(samples.astype(np.int32 if samples.dtype.kind == "i" else np.float32)))


SAID: list[tuple[str, Samples, tuple[float, float]]] = [
    ("floats", smooth().astype(np.float32), (0, 255)),
    ("uint16", smooth().astype(np.uint16) * 16, (0, 4080)),
    ("signed", smooth().astype(np.int32) * 4 - 1024, (-1024, -4)),
]


@pytest.mark.parametrize(("kind", "samples", "said"), SAID, ids=[kind for kind, _, _ in SAID])
def test_a_range_that_is_said_holds_for_arrays_and_files(
    kind: str, samples: Samples, said: tuple[float, float]
) -> None:
    """Black and white are where the user puts them; all beyond is clipped, however far."""
    assert (decode(samples, said) == smooth()).all()
    pixels = decode(as_tiff(samples), said)
    assert (pixels[:, :, 1] == smooth()[:, :, 0]).all()
    assert (decode(with_one(samples, 60_000), said)[0, 0] == 255).all()
    with pytest.raises(DecodeError, match="NaN"):
        decode(with_one(UNIT, np.nan), said)


def test_bytes_are_bytes_whatever_is_said() -> None:
    """A range is about deeper samples."""
    assert (decode(smooth(), (0, 4095)) == smooth()).all()
    assert (decode(encoded(Image.fromarray(smooth()), "PNG"), (0, 4095)) == smooth()).all()


def test_a_range_that_is_said_keeps_white_where_the_tiff_has_it() -> None:
    """Where 0 is white the smaller end is white."""
    samples = smooth()[:, :, 0].astype(np.uint16) * 16
    assert (decode(tiff(samples, _262=0), (0, 4080))[:, :, 0] == 255 - smooth()[:, :, 0]).all()


def test_large_arrays_are_scaled_like_small_ones() -> None:
    """They are scaled in bands."""
    samples = np.random.default_rng(0).random((3000, 700, 3))
    assert (to_uint8(samples) == np.rint(samples * 255)).all()


@pytest.mark.parametrize("span", [(1, 0), (0, 0), (0, float("nan")), (0, float("inf")), (0, 1, 2), "0,1", 5])
def test_ranges_that_are_none_are_refused(span: Any) -> None:
    """Black below white, both finite."""
    with pytest.raises(ConfigError) as refused:
        PreprocessSpec(value_range=span)
    assert str(refused.value) == f"value_range: {span!r} must be two finite numbers, black below white"


def test_the_range_is_part_of_the_recipe() -> None:
    """Spelled as on the command line; a search takes it over from the collection."""
    spelled: dict[str, Any] = {"to": "a.db", "value_range": "0,4095"}
    plan = make_plan(ServiceConfig(**spelled))
    assert plan.spec.value_range == (0.0, 4095.0)
    assert json.loads(recipe_of(plan))["pixels"]["value_range"] == [0, 4095]
    assert plan_of(recipe_of(plan), make_plan(ServiceConfig(to="a.db"))).spec.value_range == (0.0, 4095.0)


@pytest.mark.slow
def test_a_job_says_which_pictures_need_a_range(tmp_path: Path) -> None:
    """A dead letter that names the option; with it they are rows."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.tif").write_bytes(as_tiff(smooth().astype(np.float32)))
    job = [
        "embed",
        str(tmp_path / "scans"),
        "--to",
        f"bulk:{tmp_path / 'parts'}",
        "--workers",
        "1",
        "--progress",
        "none",
    ]
    assert main(job) == 1  # it was the only one
    (letter,) = read_dead_letters(tmp_path / "parts.dead-letters.jsonl")
    assert "--value-range" in letter.message
    assert main([*job, "--value-range", "0,255", "--overwrite"]) == 0
    assert not list(read_dead_letters(tmp_path / "parts.dead-letters.jsonl"))
