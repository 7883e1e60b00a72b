"""Pictures of any size: what counts is what is really decoded, and every limit has a knob."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penstock import ConfigError
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.workers import PreprocessPool
from penstock.errors import TooLargeError
from penstock.preprocess.decode.decode import decode_into
from penstock.preprocess.decode.jpeg import is_held_whole
from penstock.preprocess.kernel.canvas import make_canvas
from penstock.preprocess.spec import MAX_PIXELS, MAX_SIDE, PreprocessSpec
from penstock.tests.drawn import SIZE, channels, encoded, smooth

SPEC = PreprocessSpec(size=SIZE, resize=SIZE)
LARGE = 8 * SIZE
CANVAS = make_canvas(SPEC, 1)[0]
BOMBS = """
import jax.numpy as jnp
from PIL import Image

def length(pixels):
    try:
        return Image.new("1", (1, 1)).crop((0, 0, pixels, 1)).width
    except Image.DecompressionBombWarning:
        return 0

def lengths(image):
    allowed = image.shape[0] * image.shape[1]
    return jnp.array([length(allowed), length(allowed + 1)], "float32")
"""


def large(**options: Any) -> bytes:
    """A JPEG of eight times the target: an eighth of its sides is decoded."""
    return encoded(Image.fromarray(smooth(LARGE, LARGE)), "JPEG", quality=95, **options)


@pytest.mark.parametrize("decoder", ["pillow", "simplejpeg"])
def test_a_jpeg_is_measured_by_what_is_decoded_of_it(decoder: Any) -> None:
    """64 times the pixels that are allowed, and the picture is what it was."""
    tight = SPEC.replace(max_pixels=SIZE * SIZE, max_side=SIZE, decoder=decoder)
    placed = decode_into(large(), tight, CANVAS)
    assert (placed.width, placed.height) == (LARGE, LARGE)
    assert np.abs(channels(CANVAS)[:SIZE, :SIZE].astype(int) - smooth()).mean() <= 3
    for name in ("max_pixels", "max_side"):
        less: dict[str, Any] = {name: getattr(tight, name) - 1}
        with pytest.raises(TooLargeError, match=rf"512 x 512 pixels, decoded at 1/8,.*{name}"):
            decode_into(large(), tight.replace(**less), CANVAS)


def in_scans_of_their_own(data: bytes) -> bytes:
    """A JPEG whose first scan says that it has one colour of three."""
    at = data.index(b"\xff\xda")
    return data[: at + 4] + b"\1" + data[at + 5 :]


def test_what_libjpeg_holds_whole_is_measured_whole() -> None:
    """Its coefficients take more than the pixels would, however few are decoded."""
    tight = SPEC.replace(max_pixels=SIZE * SIZE)
    for data in (large(progressive=True), in_scans_of_their_own(large())):
        with pytest.raises(TooLargeError, match="512 x 512 pixels: 262144 pixels are over max_pixels=4096"):
            decode_into(data, tight, CANVAS)


def test_headers_tell_what_is_held_whole() -> None:
    """Grey and coloured, with comments and fill bytes; a header that cannot be read counts as held."""
    plain = large(comment=b"\xff\xda", restart_marker_rows=1)
    grey = encoded(Image.fromarray(smooth()).convert("L"), "JPEG")
    filled = plain[:2] + b"\xff\xff" + plain[2:]
    for data in (plain, grey, filled):
        assert not is_held_whole(data)
    for data in (plain[:100], plain[:2], b"\xff\xd8" + bytes(100), large(progressive=True)):
        assert is_held_whole(data)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP"])
def test_pillows_own_limit_is_none_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is smaller, and of the header alone; it stays as the host of this process has it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    decode_into(encoded(Image.fromarray(smooth()), name), SPEC, CANVAS)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("name", ["TIFF", "WEBP"])
def test_where_pillow_insists_its_limit_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These plugins ask for it themselves."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(TooLargeError, match=r"PIL\.Image\.MAX_IMAGE_PIXELS"):
        decode_into(encoded(Image.fromarray(smooth()), name), SPEC, CANVAS)


def test_limits_are_options_with_the_bounds_of_the_specification() -> None:
    """The help tells them."""
    plan = make_plan(ServiceConfig(to="a.db", max_pixels=MAX_PIXELS, max_side=MAX_SIDE))
    assert (plan.spec.max_pixels, plan.spec.max_side) == (MAX_PIXELS, MAX_SIDE)
    for name, bound in (("max_pixels", MAX_PIXELS), ("max_side", MAX_SIDE)):
        settings: dict[str, Any] = {"to": "a.db", name: bound + 1}
        with pytest.raises(ConfigError, match=name):
            ServiceConfig(**settings)
        assert f"{bound:,}" in (ServiceConfig.model_fields[name].description or "")


def test_a_panorama_is_taken_where_the_side_is_allowed() -> None:
    """40,000 x 400 is 16 million pixels."""
    data = encoded(Image.new("L", (40_000, 400), 77), "PNG")
    with pytest.raises(TooLargeError, match="max_side=32768"):
        decode_into(data, SPEC, CANVAS)
    placed = decode_into(data, SPEC.replace(max_side=40_000), CANVAS)
    assert (placed.width, placed.height) == (40_000, 400)


def test_in_workers_pillow_is_held_to_max_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel more is an error there, not a warning: as a transform in the worker finds it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bombs_of_test_decode_large.py").write_text(BOMBS)
    spec = SPEC.replace(max_pixels=SIZE * SIZE, transform="bombs_of_test_decode_large:lengths")
    with PreprocessPool(spec, workers=1, batch_size=1) as pool:
        pool.start_in_hub()
        batch = pool.process([encoded(Image.fromarray(smooth()), "PNG")])
        assert batch.failures == []
        assert batch.view.pixels[0].tolist() == [SIZE * SIZE, 0]
        batch.release()
        pool.stop_in_hub()


@pytest.mark.slow
def test_pictures_over_pillows_limit_are_decoded_in_workers() -> None:
    """A JPEG of 200 million pixels as it is, a TIFF of as many where they are allowed."""
    fax = io.BytesIO()
    Image.new("1", (14_000, 14_000), 1).save(fax, "TIFF", compression="group4")
    photo = encoded(Image.new("L", (16_384, 12_288), 200), "JPEG")
    for source, allowed in ((photo, 64_000_000), (fax.getvalue(), 200_000_000)):
        with PreprocessPool(SPEC.replace(max_pixels=allowed), workers=1, batch_size=1) as pool:
            pool.start_in_hub()
            batch = pool.process([source])
            assert [error for _, error in batch.failures] == []
            assert (batch.rows[0].width * batch.rows[0].height) > 178_956_970
            batch.release()
            pool.stop_in_hub()
