"""Detectors in ONNX files: five layouts told apart, what is refused, boxes in pixels of frames. The models are real."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from penstock.engine.detectors import Detections, parse_detector
from penstock.engine.detectors.layouts import find_plan
from penstock.engine.doctor.checks import plugins
from penstock.engine.doctor.examine import registries
from penstock.errors import ConfigError, DetectError, DetectorError

from .detector_models import COLOURS, SIDE, Layout, frame, write_detector

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Make = Callable[..., str]
KNOWN = [layout for layout in get_args(Layout) if layout != "unknown"]

# A wide frame is halved, with 16 grey rows above and below; a tall one is doubled, with columns beside.
WIDE = frame(128, 64, ("red", 32, 0, 64, 32), ("blue", 96, 32, 128, 64))
TALL = frame(16, 32, ("green", 0, 8, 8, 16))
EMPTY = frame(64, 64)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that writes a model and says what it is asked for by."""

    def write(layout: Layout = "v8", name: str = "m", **options: Any) -> str:
        return f"onnx:{write_detector(tmp_path / f'{name}.onnx', layout, **options)}"

    return write


def found(spec: str, *frames: Any, **options: str | int | float) -> list[list[tuple[str, list[int]]]]:
    """Of each frame the classes and boxes, by class; every score must be high."""
    with parse_detector(spec, **options) as detector:
        detector.open()
        answers = detector.detect(frames)
    for answer in answers:
        assert isinstance(answer, Detections)
        assert len(answer) == len(answer.boxes) == len(answer.scores)
        assert (answer.scores > 0.85).all()
        assert answer.boxes.dtype == answer.scores.dtype == np.float32
    return [
        sorted((name, box) for name, box in zip(a.classes, a.boxes.round().astype(int).tolist(), strict=True))
        for a in answers
        if isinstance(a, Detections)
    ]


@pytest.mark.parametrize("layout", KNOWN)
@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_every_layout_gives_boxes_in_pixels_of_the_frame(make: Make, layout: Layout, batch: int | str) -> None:
    """Frames of several sizes at once, of which some are empty; whatever the model takes in one call."""
    answers = found(make(layout, batch=batch), WIDE, EMPTY, TALL, WIDE)
    wide = [("blue", [96, 32, 128, 64]), ("red", [32, 0, 64, 32])]
    assert answers == [wide, [], [("green", [0, 8, 8, 16])], wide]


@pytest.mark.parametrize(("layout", "short"), [("v8", "a,b"), ("v5", "a,b,c,d")])
def test_turned_axes_are_read_where_the_user_says_so(make: Make, layout: Layout, short: str) -> None:
    """Otherwise a name too few or too many would make one layout of another, without a word."""
    turned = make(layout, turned=True)
    message = rf"may be {layout} turned: .*; say which, as in \?layout={layout}, or are names"
    with pytest.raises(ConfigError, match=message):
        parse_detector(turned).check()
    assert found(turned, TALL, layout=layout) == [[("green", [0, 8, 8, 16])]]
    with pytest.raises(ConfigError, match="or are names= not all of its classes"):
        parse_detector(make(layout), names=short).check()


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "UINT8"])
@pytest.mark.parametrize("nchw", [True, False])
def test_pixels_come_as_the_model_takes_them(make: Make, kind: str, nchw: bool) -> None:
    """Shares of white as floats, or bytes; channels first or last."""
    assert found(make(kind=kind, nchw=nchw), TALL) == [[("green", [0, 8, 8, 16])]]


def test_a_model_that_takes_one_picture_only_is_fed_one_at_a_time(make: Make) -> None:
    """Although its file says that it takes any number."""
    spec = make(at_once=1)
    assert found(spec, TALL, EMPTY, TALL) == [[("green", [0, 8, 8, 16])], [], [("green", [0, 8, 8, 16])]]


@pytest.mark.parametrize("layout", ["detr", "ssd"])
def test_outputs_without_telling_names_are_told_by_shape_and_order(make: Make, layout: Layout) -> None:
    """Logits and boxes in any order; boxes, scores, classes, count."""
    assert found(make(layout, plain_names=True), TALL) == [[("green", [0, 8, 8, 16])]]


@pytest.mark.parametrize(("classes", "layout", "both"), [(1, "v5", "v5 or nms"), (2, "nms", "v8 turned or nms")])
def test_six_numbers_a_box_with_one_or_two_classes_need_a_word(
    make: Make, classes: int, layout: Layout, both: str
) -> None:
    """[n, N, 6] may be two things then: refused until layout= says which."""
    spec, red = make(layout, classes=classes), frame(64, 64, ("red", 16, 32, 32, 48))
    with pytest.raises(ConfigError, match=rf"its outputs may be {both}: output0 \[2, 16, 6\]; say which"):
        parse_detector(spec).check()
    assert found(spec, red, layout=layout) == [[("red", [16, 32, 32, 48])]]


@pytest.mark.parametrize(("classes", "layout"), [(1, "v8"), (2, "v8"), (2, "v5")])
def test_other_layouts_of_one_or_two_classes_need_none(make: Make, classes: int, layout: Layout) -> None:
    """[n, 5, N], [n, 6, N] and [n, N, 7] are one thing only."""
    red = frame(64, 64, ("red", 16, 32, 32, 48))
    assert found(make(layout, classes=classes), red) == [[("red", [16, 32, 32, 48])]]


def test_an_unknown_layout_is_refused_with_the_shapes(make: Make) -> None:
    """Before a job starts; so is one that does not fit what the user says."""
    message = r"no layout fits its outputs for 3 classes: heat \[2, 1, 16\], labels \[2, 1, 16\]; they may be v8 "
    with pytest.raises(ConfigError, match=message):
        parse_detector(make("unknown")).check()
    with pytest.raises(ConfigError, match=r"layout=v5 does not fit its outputs for 3 classes: output0 \[2, 7, 16\]"):
        parse_detector(make("v8"), layout="v5").check()
    with pytest.raises(ConfigError, match=r"for 1 class: output0 \[2, 7, 16\]; .* are names= not all of"):
        parse_detector(make("v8"), names="red").check()


def test_outputs_of_real_exporters_are_told_apart() -> None:
    """Shapes as they come, with 80 classes."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "v8": {"output0": (1, 84, 8400)},
        "v5": {"output": (1, 25200, 85), "345": (1, 3, 80, 80, 85), "403": (1, 3, 40, 40, 85)},
        "nms": {"output0": (1, 300, 6)},
        "detr": {"logits": (1, 300, 80), "boxes": (1, 300, 4)},
        "ssd": {"num": (1,), "boxes": (1, 100, 4), "scores": (1, 100), "labels": (1, 100)},
    }
    assert {layout: find_plan("m", found, 80, None).layout for layout, found in shapes.items()} == {
        layout: layout for layout in shapes
    }
    ssd = find_plan("m", shapes["ssd"], 80, None)
    assert ssd.outputs == ("boxes", "scores", "labels", "num")
    assert find_plan("m", {"pred_boxes": (1, 9, 4), "logits": (1, 9, 4)}, 4, None).outputs == ("logits", "pred_boxes")
    with pytest.raises(ConfigError, match=r"output0 \[1, 116, 8400\], output1 \[1, 32, 160, 160\]"):  # segmentation
        find_plan("m", {"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, 80, None)


@pytest.mark.parametrize(
    ("meta", "options"),
    [
        ({"names": "['red', 'green', 'blue']"}, {}),
        ({"names": '{"0": 1}'}, {"names": "red, green,blue"}),
        ({}, {"names": "@FILE"}),
    ],
)
def test_names_come_from_the_model_or_from_the_user(
    make: Make, tmp_path: Path, meta: dict[str, str], options: dict[str, str]
) -> None:
    """A dict or a list in the file; the user's win."""
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    options = {name: value.replace("FILE", str(tmp_path / "names.txt")) for name, value in options.items()}
    spec = make(meta=meta)
    assert parse_detector(spec, **options).classes == COLOURS
    assert found(spec, TALL, **options) == [[("green", [0, 8, 8, 16])]]


def test_numbers_of_classes_may_begin_anywhere(make: Make) -> None:
    """SSD counts from 1; names that came with numbers keep them, and what has no name is called by its number."""
    named = make("ssd", meta={"names": "{1: 'rot', 2: 'verde'}"})
    assert found(named, WIDE, TALL)[1] == [("verde", [0, 8, 8, 16])]
    assert found(named, WIDE)[0][0][0] == "class 3"


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({}, r"does not say what its classes are called: say them, as in \?names=person,dog"),
        ({"names": "__import__('os').abort()"}, "names of classes cannot be understood: "),
        ({"names": "{'a': 'b'}"}, "cannot be understood"),
        ({"names": "{}"}, "cannot be understood"),
        ({"names": "[" * 100_000}, "cannot be understood"),
        ({"names": "[1, 2]"}, "they must be one or more names"),
    ],
)
def test_names_that_are_none_are_refused(make: Make, meta: dict[str, str], message: str) -> None:
    """They are a literal, and nothing is executed."""
    with pytest.raises(ConfigError, match=message):
        parse_detector(make(meta=meta)).check()


def test_wanted_classes_are_held_against_the_models(make: Make) -> None:
    """Before a job starts: an unknown one is refused with what there is. A frame passes if any of them is in it."""
    detector = parse_detector(make())
    detector.check(["red", "blue"])
    with pytest.raises(ConfigError, match="finds no 'gren', it finds red, green, blue; did you mean 'green'"):
        detector.check(["red", "gren"])
    many = {"names": str([f"class{number}" for number in range(15)])}
    with pytest.raises(ConfigError, match=r"no layout fits"):
        parse_detector(make(meta=many)).check(["x"])
    detector.open()
    (answer,) = detector.detect([WIDE])
    assert isinstance(answer, Detections)
    assert answer.has({"red"})
    assert answer.has(["green", "blue"])
    assert not answer.has({"green"})


def test_what_is_below_conf_is_not_found(make: Make) -> None:
    """0.25 by default: a paler square is found, and a quarter of one is not."""
    pale = np.full((64, 64, 3), 100, np.uint8)
    pale[16:32, 16:32] = (200, 100, 100)  # scores 0.39
    pale[32:48, 16:20] = (255, 0, 0)  # a quarter of a cell: 0.25 less what the edge loses
    spec = make()
    for conf, expected in ((0.2, 2), (0.3, 1), (0.5, 0)):
        with parse_detector(spec, conf=conf) as detector:
            detector.open()
            (answer,) = detector.detect([pale])
            assert isinstance(answer, Detections)
            assert len(answer) == expected
            assert (np.diff(answer.scores) <= 0).all()


@pytest.mark.parametrize("batch", ["n", 1])
def test_an_answer_that_is_none_is_one_frames_failure(make: Make, batch: int | str) -> None:
    """NaN in one row of a batch; the others are answered."""
    with parse_detector(make(batch=batch)) as detector:
        detector.open()
        first, second, third = detector.detect([TALL, np.zeros((64, 64, 3), np.uint8), TALL])
    assert isinstance(second, DetectError)
    assert "holds numbers that are none" in str(second)
    assert isinstance(first, Detections)
    assert isinstance(third, Detections)
    assert first.classes == third.classes == ("green",)


def test_open_sizes_follow_the_option_then_the_model(make: Make) -> None:
    """This model takes 64 only, and its file does not say so."""
    meta = {"names": "['red', 'green', 'blue']"}
    open_sides = make(size="s", meta=meta)
    assert found(open_sides, TALL, size=64) == [[("green", [0, 8, 8, 16])]]
    told = make(name="told", size="s", meta=meta | {"imgsz": "[64, 64]"})
    assert found(told, TALL) == [[("green", [0, 8, 8, 16])]]
    with pytest.raises(DetectorError, match=r"failed on \[1, 3, 640, 640\] float32 pixels"):
        parse_detector(open_sides).check()
    with pytest.raises(ConfigError, match="takes 64 x 64 pixels: leave out size=32"):
        parse_detector(make(size=SIDE), size=32).check()


def test_a_spec_makes_the_same_detector_again_in_another_thread(make: Make) -> None:
    """As workers do."""
    first = parse_detector(make(), conf=0.5, iou=0.4, names="a,b,c", threads=2)
    again = parse_detector(first.spec)
    assert (again.spec, again.fingerprint, again.classes) == (first.spec, first.fingerprint, ("a", "b", "c"))
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: [name for name, _ in found(first.spec, TALL)[0]], range(2)))
    assert answers == [["b"], ["b"]]


def test_the_fingerprint_follows_the_bytes_and_the_options(make: Make, tmp_path: Path) -> None:
    """Not the file's name, not the threads; the lines of a file of names, too."""
    spec = make()
    (tmp_path / "copy.onnx").write_bytes((tmp_path / "m.onnx").read_bytes())
    first = parse_detector(spec).fingerprint
    assert parse_detector(f"onnx:{tmp_path}/copy.onnx", threads=3).fingerprint == first
    (tmp_path / "names.txt").write_text("a\nb\nc")
    options: list[dict[str, Any]] = [{"conf": 0.3}, {"iou": 0.3}, {"layout": "v8"}, {"names": "a,b,d"}, {"size": 64}]
    others = {parse_detector(spec, **option).fingerprint for option in options}
    others.add(parse_detector(spec, names=f"@{tmp_path}/names.txt").fingerprint)
    others.add(parse_detector(make("v5", name="other")).fingerprint)
    assert len(others | {first}) == 8


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("onnx:", "say which file"),
        ("tflite:m", "detector: 'tflite:m': there is no 'tflite', there are onnx"),
        ("onnx:m.onnx?cpu=1", "detector onnx:m.onnx has no option 'cpu': it has layout, names"),
        ("onnx:m.onnx?layout=v9", "layout='v9' must be one of v8, v5, nms, detr, ssd"),
        ("onnx:m.onnx?size=x", "size='x' must be 32 to 9999 pixels"),
        ("onnx:m.onnx?size=8", "size='8' must be 32 to 9999 pixels"),
        ("onnx:m.onnx?conf=0", "conf='0' must be above 0 and at most 1"),
        ("onnx:m.onnx?iou=high", "iou='high' must be above 0 and at most 1"),
        ("onnx:m.onnx?conf=nan", "conf='nan' must be above 0 and at most 1"),
        ("onnx:m.onnx?threads=0", "threads='0' must be a positive integer"),
    ],
)
def test_wrong_options_are_refused(spec: str, message: str) -> None:
    """When the spec is read, before any file is touched."""
    with pytest.raises(ConfigError, match=message):
        parse_detector(spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "INT32"}, r"tensor\(int32\); it may be"),
        ({"inputs": 2}, "it has 2: images, extra1"),
    ],
)
def test_models_that_take_something_else_are_refused(make: Make, options: dict[str, Any], message: str) -> None:
    """Before a job starts."""
    with pytest.raises(ConfigError, match=message):
        parse_detector(make(**options)).check()


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    """No file is a setting's error, also one of names; a file that is no model is the detector's."""
    missing = parse_detector(f"onnx:{tmp_path}/no.onnx")
    for ask in (missing.check, missing.open, lambda: missing.fingerprint):
        with pytest.raises(ConfigError, match=r"detector onnx: there is no file '.*no\.onnx'"):
            ask()
    (tmp_path / "broken.onnx").write_bytes(b"<html>not found</html>")
    with pytest.raises(DetectorError, match=r"cannot load .*broken\.onnx"):
        parse_detector(f"onnx:{tmp_path}/broken.onnx").check()
    with pytest.raises(ConfigError, match=r"names=@/no/where: the file cannot be read"):
        _ = parse_detector(f"onnx:{tmp_path}/broken.onnx?names=@/no/where").fingerprint


def test_an_installed_package_may_bring_detectors(install: Callable[..., None]) -> None:
    """Asked for by their scheme, and listed by the doctor."""
    code = "def make(rest, options): return (rest, options)"
    install("acme_seer", {"acme": "acme_seer:make"}, code, "penstock.detectors")
    made: Any = parse_detector("acme:x?a=b", conf=0.5)
    assert made == ("x", {"a": "b", "conf": "0.5"})
    (listed,) = (plugins(each) for each in registries() if each.group == "penstock.detectors")
    assert "installed: acme (acme_seer 1.2)" in listed.detail


def test_without_onnx_runtime_the_extra_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the command to type."""
    spec = make()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"detector onnx needs ONNX Runtime: pip install 'penstock\[onnx\]'"):
        parse_detector(spec).check()


def test_it_is_opened_first_and_again_after_its_end(make: Make) -> None:
    """close() lets go of the model."""
    detector = parse_detector(make())
    with pytest.raises(DetectorError, match=r"detect\(\) before open\(\)"):
        detector.detect([TALL])
    for _ in range(2):
        detector.open()
        assert detector.detect([]) == []
        assert len(detector.detect([TALL])) == 1
        detector.close()
        detector.close()
