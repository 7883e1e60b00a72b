"""ONNX Runtime: what is read from a model, what is refused, how it is run. The models are real, and made here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.engine.embedders import ArrayView, OnnxEmbedder, PixelPreferences, parse_embedder
from penstock.errors import ConfigError, EmbedderError

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Make = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Spec:
    """Plain pixels, as a preprocessing specification describes them; `shape` stands for a user's transform."""

    size: int = 8
    dtype: str = "float32"
    layout: str = "NCHW"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    transform: str | None = None
    shape: tuple[int, ...] | None = None

    def pixel_shape(self) -> tuple[int, ...]:
        plain = (3, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, 3)
        return self.shape or plain

    def pixel_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)


def tensor(name: str, kind: str, shape: list[int | str]) -> Any:
    return onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), shape)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that writes a model: the sum over H and W of each channel, as output "vector" and others."""

    def write(
        shape: list[int | str],
        kind: str = "FLOAT",
        outputs: tuple[str, ...] = ("vector",),
        inputs: int = 1,
        name: str = "m",
        scale: float = 1.0,
    ) -> str:
        node = onnx.helper.make_node
        axes = [2, 3] if len(shape) == 4 and shape[1] in (3, "c") else [1, 2]
        rows = shape[0] if shape else 1
        constants = [
            onnx.numpy_helper.from_array(np.array(axes), "axes"),
            onnx.numpy_helper.from_array(np.array(scale, np.float32), "scale"),
        ]
        shapes: dict[str, list[int | str]] = {"vector": [rows, 3], "kept": [rows, 3, 1, 1], "second": [rows, 3]}
        shapes |= {"tokens": [rows, 1, 3], "flat": [1]}
        nodes = [
            node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
            node("Mul", ["float", "scale"], ["scaled"]),
            node("ReduceSum", ["scaled", "axes"], ["vector"], keepdims=0),
            node("ReduceSum", ["scaled", "axes"], ["kept"], keepdims=1),
            node("Neg", ["vector"], ["second"]),
            node("Unsqueeze", ["vector", "one"], ["tokens"]),
            node("ReduceSum", ["vector"], ["flat"], keepdims=0),
        ]
        constants.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
        given = [tensor("image", kind, shape), *(tensor(f"extra{i}", "FLOAT", [1]) for i in range(1, inputs))]
        graph = onnx.helper.make_graph(
            nodes, "sums", given, [tensor(o, "FLOAT", shapes[o]) for o in outputs], constants
        )
        opset = [onnx.helper.make_opsetid("", 17)]
        path = str(tmp_path / f"{name}.onnx")
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return path

    return write


def embed(path: str, spec: Spec, rows: int, **options: str | int) -> Any:
    """``(pixels, vectors)`` of `rows` random pictures in a batch of 5."""
    pixels = np.random.default_rng(3).integers(0, 256, (5, *spec.pixel_shape())).astype(spec.dtype)
    with parse_embedder(f"onnx:{path}", threads=1, **options) as embedder:
        embedder.open(spec, 5)
        view = ArrayView(pixels, np.zeros((5, embedder.dimension), np.float32))
        embedder.embed(view, rows)
    return pixels[:rows].astype(np.float64), view.embeddings[:rows]


@pytest.mark.parametrize(("kind", "dtype"), [("FLOAT", "float32"), ("FLOAT16", "float16"), ("UINT8", "uint8")])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("batch", ["n", 1, 2, 7])
def test_gives_the_models_vectors(make: Make, kind: str, dtype: str, layout: str, batch: int | str) -> None:
    """Every element type, layout and batch dimension gives what the model computes, for full and partial batches."""
    path = make([batch, 3, 8, 8] if layout == "NCHW" else [batch, 8, 8, 3], kind)
    for rows in (0, 1, 3, 5):
        pixels, vectors = embed(path, Spec(dtype=dtype, layout=layout), rows)
        expected = pixels.sum(axis=(2, 3) if layout == "NCHW" else (1, 2))
        np.testing.assert_allclose(vectors, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "kind", "wants"),
    [
        (["n", 3, 8, 8], "FLOAT", PixelPreferences(size=8, dtype="float32", layout="NCHW")),
        (["n", 8, 8, 3], "UINT8", PixelPreferences(size=8, dtype="uint8", layout="NHWC")),
        (["n", 3, "h", "w"], "FLOAT16", PixelPreferences(dtype="float16", layout="NCHW")),
        (["n", "c", "h", "w"], "FLOAT", PixelPreferences(dtype="float32")),
    ],
)
def test_wants_what_the_model_fixes(make: Make, shape: list[int | str], kind: str, wants: PixelPreferences) -> None:
    """Size, element type and layout are read from the file, and left open where it leaves them open."""
    assert parse_embedder(f"onnx:{make(shape, kind)}").wants == wants


def test_an_open_size_takes_any_size(make: Make) -> None:
    """A model with free height and width runs at the size the user chose."""
    pixels, vectors = embed(make(["n", 3, "h", "w"]), Spec(size=20), 2)
    np.testing.assert_allclose(vectors, pixels.sum(axis=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 9}, "set --image-size 8"),
        ({"dtype": "uint8"}, "set --dtype float32"),
        ({"layout": "NHWC"}, "set layout=NCHW"),
    ],
)
def test_pixels_that_do_not_fit_are_refused_by_knob(make: Make, changes: dict[str, Any], message: str) -> None:
    """check() and open() both name the setting to change."""
    embedder = parse_embedder(f"onnx:{make(['n', 3, 8, 8])}")
    for call in (embedder.check, lambda spec: embedder.open(spec, 4)):
        with pytest.raises(ConfigError, match=message):
            call(Spec(**changes))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (["n", 4, 8, 8], {}, "without 3 colour channels"),
        (["n", 3, 8, 9], {}, "only squares"),
        (["n", 3, 8], {}, r"pictures are \[n, 3, H, W\]"),
        (["n", 3, 8, 8], {"kind": "INT32"}, r"tensor\(int32\); it may be"),
        (["n", 3, 8, 8], {"inputs": 2}, "it has 2: image, extra1"),
        (["n", 3, 8, 8], {"outputs": ("vector", "second")}, r"\?output=vector"),
        (["n", 3, 8, 8], {"outputs": ("tokens",)}, r"it has tokens"),
    ],
)
def test_models_not_for_pictures_are_refused(
    make: Make, shape: list[int | str], options: dict[str, Any], message: str
) -> None:
    """What penstock cannot feed, or cannot read vectors from, is refused with what the model has instead."""
    with pytest.raises(ConfigError, match=message):
        parse_embedder(f"onnx:{make(shape, **options)}").check(Spec())


def test_the_only_output_of_a_vectors_shape_is_chosen(make: Make) -> None:
    """A model that also returns token embeddings needs no option."""
    pixels, vectors = embed(make(["n", 3, 8, 8], outputs=("tokens", "vector", "flat")), Spec(), 3)
    np.testing.assert_allclose(vectors, pixels.sum(axis=(2, 3)), rtol=1e-5)


def test_the_output_option_chooses(make: Make) -> None:
    """?output= takes one of several, and an unknown name is answered with the known ones."""
    path = make(["n", 3, 8, 8], outputs=("vector", "second"))
    pixels, vectors = embed(path, Spec(), 3, output="second")
    np.testing.assert_allclose(vectors, -pixels.sum(axis=(2, 3)), rtol=1e-5)
    with pytest.raises(ConfigError, match="no output 'third'; it has vector, second"):
        parse_embedder(f"onnx:{path}?output=third").check(Spec())


def test_a_pooled_map_of_one_by_one_is_a_vector(make: Make) -> None:
    """[n, D, 1, 1], as global pooling leaves it, is flattened."""
    pixels, vectors = embed(make(["n", 3, 8, 8], outputs=("kept",)), Spec(), 4)
    np.testing.assert_allclose(vectors, pixels.sum(axis=(2, 3)), rtol=1e-5)


def test_an_output_that_is_no_vector_is_refused_at_open(make: Make) -> None:
    """The trial run finds an output that was asked for and has the wrong shape."""
    embedder = parse_embedder(f"onnx:{make(['n', 3, 8, 8], outputs=('tokens', 'vector'))}?output=tokens")
    with pytest.raises(EmbedderError, match=r"output 'tokens'.*\[n, D\].*\[2, 1, 3\]"):
        embedder.open(Spec(), 4)


def test_a_transforms_pixels_are_tried_at_open(make: Make) -> None:
    """With a user's transform only a trial can tell whether its pixels fit the model."""
    path = make(["n", 3, 8, 8])
    parse_embedder(f"onnx:{path}").open(Spec(size=99, transform="my:own", shape=(3, 8, 8)), 2)
    with pytest.raises(EmbedderError, match=r"failed on \[2, 3, 9, 9\] float32"):
        parse_embedder(f"onnx:{path}").open(Spec(size=8, transform="my:own", shape=(3, 9, 9)), 2)


def test_fingerprint_follows_the_files_bytes_not_its_name(make: Make, tmp_path: Path) -> None:
    """A copy has the same fingerprint; other weights, in the file or beside it, or another output, have another."""
    path = make(["n", 3, 8, 8], name="a")
    copy = tmp_path / "b.onnx"
    copy.write_bytes(Path(path).read_bytes())
    first = parse_embedder(f"onnx:{path}").fingerprint
    assert parse_embedder(f"onnx:{copy}?threads=2").fingerprint == first
    others = {parse_embedder(f"onnx:{make(['n', 3, 8, 8], name='c', scale=2.0)}").fingerprint}
    others.add(parse_embedder(f"onnx:{path}?output=vector").fingerprint)
    (tmp_path / "b.onnx.data").write_bytes(b"weights")
    others.add(parse_embedder(f"onnx:{copy}").fingerprint)
    (tmp_path / "b.onnx.data").write_bytes(b"weightz")
    others.add(parse_embedder(f"onnx:{copy}").fingerprint)
    assert len(others | {first}) == 5


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    """No file is a setting error; a file that is no model is the embedder's."""
    missing = parse_embedder(f"onnx:{tmp_path}/no.onnx")
    for ask in (lambda: missing.fingerprint, lambda: missing.wants, lambda: missing.check(Spec())):
        with pytest.raises(ConfigError, match=r"no\.onnx"):
            ask()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(EmbedderError, match=r"cannot load .*broken\.onnx"):
        parse_embedder(f"onnx:{broken}").check(Spec())


def test_without_onnx_runtime_the_extra_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the command to type."""
    path = make(["n", 3, 8, 8])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[onnx\]'"):
        parse_embedder(f"onnx:{path}").check(Spec())


@pytest.mark.parametrize(
    "spec", ["onnx:", "onnx", "onnx:m.onnx?threads=0", "onnx:m.onnx?threads=x", "onnx:m.onnx?cpu=1"]
)
def test_wrong_options_are_refused(spec: str) -> None:
    """Options are checked when the spec is read, before any file is touched."""
    with pytest.raises(ConfigError, match="onnx"):
        parse_embedder(spec)


def test_reopening_after_close_works(make: Make) -> None:
    """close() lets go of the session; open() loads it again."""
    embedder = OnnxEmbedder(make(["n", 3, 8, 8]), threads=1)
    view = ArrayView(np.ones((2, 3, 8, 8), np.float32), np.zeros((2, 3), np.float32))
    for _ in range(2):
        embedder.open(Spec(), 2)
        embedder.embed(view, 2)
        embedder.close()
    assert (view.embeddings == 64).all()
