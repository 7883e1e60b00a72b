"""What is read from a model's metadata and configuration, without a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.engine.embedders.triton import HostPort, read_address
from penstock.engine.embedders.triton.discovery import need_same
from penstock.engine.embedders.triton.model_spec import ModelSpec, read_model_spec
from penstock.errors import ConfigError
from penstock.preprocess.spec import PreprocessSpec

Node = dict[str, Any]


def node(name: str, datatype: str, *shape: int | str) -> Node:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


PICTURES = node("IMAGE", "FP32", -1, 3, 224, 224)
VECTORS = node("EMBEDDING", "FP32", -1, 512)


def model(
    inputs: list[Node] | None = None,
    outputs: list[Node] | None = None,
    *,
    batch: int = 8,
    config: dict[str, Any] | None = None,
    versions: tuple[str, ...] = ("1",),
    options: dict[str, str] | None = None,
) -> ModelSpec:
    address = read_address("http", "//h/m", options or {})
    metadata = {"name": "m", "versions": versions, "inputs": inputs or [PICTURES], "outputs": outputs or [VECTORS]}
    return read_model_spec(address, metadata, {"max_batch_size": batch, **(config or {})})


def test_a_plain_model_is_read_whole() -> None:
    """Input, output, sizes and limits."""
    assert model() == ModelSpec(
        name="m",
        version="1",
        input="IMAGE",
        datatype="FP32",
        layout="NCHW",
        size=224,
        output="EMBEDDING",
        output_type="FP32",
        dimension=512,
        batched=True,
        fixed=None,
        most=8,
        instances=1,
    )


@pytest.mark.parametrize(
    ("inputs", "batch", "expected"),
    [
        (node("I", "UINT8", -1, 64, 64, 3), 4, {"layout": "NHWC", "size": 64, "dtype": "uint8", "step": 4}),
        (node("I", "FP16", -1, 3, -1, -1), 4, {"layout": "NCHW", "size": None, "dtype": "float16"}),
        (node("I", "FP32", -1, -1, -1, -1), 4, {"layout": None, "size": None}),
        (node("I", "FP32", "-1", "3", "32", "32"), 4, {"layout": "NCHW", "size": 32}),
        (node("I", "FP32", -1, 3, 32, 32), 0, {"batched": True, "step": None, "fixed": None}),
        (node("I", "FP32", 6, 3, 32, 32), 0, {"batched": True, "step": 6, "fixed": 6}),
        (node("I", "FP32", 3, 32, 32), 0, {"batched": False, "step": 1, "size": 32}),
    ],
)
def test_input_shapes_tell_layout_size_and_batch(inputs: Node, batch: int, expected: dict[str, Any]) -> None:
    """With a batch limit, with the batch spelled out, and without any batch."""
    vectors = node("V", "FP32", 16) if len(inputs["shape"]) == 3 else node("V", "FP32", -1, 16)
    found = model([inputs], [vectors], batch=batch)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.dimension == 16


@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "message"),
    [
        ([node("A", "FP32", -1, 3, 8, 8), node("B", "INT64", -1, 77)], None, {}, r"one input.*has 2: A, B"),
        ([node("A", "FP32", -1, 3, 8, 8), node("B", "INT64", -1)], None, {"input": "A"}, r"needs others besides"),
        ([node("A", "FP32", -1, 3, 8, 8)], None, {"input": "B"}, r"no input 'B'; it has A"),
        ([node("A", "INT64", -1, 77)], None, {}, r"is INT64; it may be FP32, FP16, UINT8"),
        ([node("A", "FP32", -1, 512)], None, {}, r"pictures are \[3, H, W\]"),
        ([node("A", "FP32", -1, 1, 28, 28)], None, {}, r"without 3 colour channels"),
        ([node("A", "FP32", -1, 3, 28, 32)], None, {}, r"only squares"),
        (None, [node("V", "INT64", -1, 5)], {}, r"say which output.*V INT64"),
        (None, [node("V", "FP32", -1, 5), node("W", "FP32", -1, 7)], {}, r"\?output=V"),
        (None, [node("V", "FP32", -1, 5)], {"output": "W"}, r"no output 'W'"),
        (None, [node("V", "FP32", -1, 5, 7)], {"output": "V"}, r"no output 'V' of vectors"),
        (None, None, {"dimension": "16"}, r"has 512 floats a row, not dimension=16"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    inputs: list[Node] | None, outputs: list[Node] | None, options: dict[str, str], message: str
) -> None:
    """Not from one picture to one vector, or not clear which: the message says what there is."""
    with pytest.raises(ConfigError, match=message):
        model(inputs, outputs, options=options)


def test_what_the_user_names_is_chosen() -> None:
    """One of several outputs, and a picture beside an optional input."""
    found = model(
        [PICTURES, node("HINT", "FP32", -1, 4)],
        [VECTORS, node("LOGITS", "FP32", -1, 1000)],
        config={"input": [{"name": "IMAGE"}, {"name": "HINT", "optional": True}]},
        options={"output": "LOGITS"},
    )
    assert (found.input, found.output, found.dimension) == ("IMAGE", "LOGITS", 1000)


def test_the_newest_version_is_meant_unless_one_is_named() -> None:
    """Triton's own rule; the number is held on to, so that a model replaced in the middle cannot mix vectors."""
    assert model(versions=("2", "10", "9")).version == "10"
    assert model(versions=("2", "10"), options={"version": "2"}).version == "2"
    assert model(versions=()).version == ""


def test_an_open_dimension_is_left_to_the_trial_or_the_user() -> None:
    """-1 in the metadata."""
    assert model(None, [node("V", "FP32", -1, -1)]).dimension is None
    assert model(None, [node("V", "FP32", -1, -1)], options={"dimension": "16"}).dimension == 16


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], 1),
        ([{"count": 3, "kind": "KIND_CPU"}], 3),
        ([{"count": 2, "gpus": [0, 1]}, {"count": 1, "kind": "KIND_CPU"}], 5),
    ],
)
def test_instances_are_counted_on_every_device(groups: list[dict[str, Any]], expected: int) -> None:
    """A group has its instances once per GPU."""
    assert model(config={"instance_group": groups}).instances == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "uint8", "mean": None, "std": None}, "--dtype float32"),
        ({"layout": "NHWC"}, "layout=NCHW"),
        ({"size": 336, "resize": 336}, "--image-size 224"),
    ],
)
def test_pixels_that_do_not_fit_are_refused_by_the_knob(changes: dict[str, Any], message: str) -> None:
    """In the words of the ONNX embedder."""
    spec = PreprocessSpec(size=224, dtype="float32")
    model().check("triton:m", spec)
    with pytest.raises(ConfigError, match=message):
        model().check("triton:m", spec.replace(**changes))


def test_the_fingerprint_is_of_what_makes_the_vectors() -> None:
    """Not of how fast or in which portions they are made."""
    base = model()
    same = replace(base, most=64, instances=4)
    assert same.fingerprint == base.fingerprint
    changes: list[dict[str, Any]] = [
        {"version": "2"},
        {"datatype": "UINT8"},
        {"dimension": 256},
        {"output": "X"},
        {"name": "n"},
    ]
    for other in changes:
        assert replace(base, **other).fingerprint != base.fingerprint


def test_servers_that_differ_are_refused_by_the_difference() -> None:
    """Their vectors would not go together."""
    base = model()
    need_same("t", HostPort("a", 1), base, HostPort("b", 1), replace(base, instances=9))
    with pytest.raises(ConfigError, match=r"a:1 and b:1 .*version is 1 at one and 2 at the other"):
        need_same("t", HostPort("a", 1), base, HostPort("b", 1), replace(base, version="2"))


@pytest.mark.parametrize(("said", "squash"), [("true", True), ("false", False), (None, None)])
def test_the_models_configuration_may_say_how_pictures_become_square(said: str | None, squash: bool | None) -> None:
    """Tensors cannot tell whether the model was made with squashed or with cropped pictures: a parameter can."""
    parameters = {"squash": {"string_value": said}} if said else {}
    assert model(config={"max_batch_size": 8, "parameters": parameters}).wants.squash is squash


def test_a_squash_that_is_neither_is_refused() -> None:
    """Rather than taken for one of them."""
    with pytest.raises(ConfigError, match="squash is 'yes'"):
        model(config={"max_batch_size": 8, "parameters": {"squash": {"string_value": "yes"}}})
