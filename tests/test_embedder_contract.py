"""The contract every embedder keeps, for each kind of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.engine.embedders import Pixels, nonfinite_rows, parse_embedder
from penstock.engine.servers import TritonServer
from penstock.preprocess.spec import PreprocessSpec
from penstock.testing.embedders import EmbedderContract, PlainPixels, batch, pictures
from penstock.tests.waiting import DEADLINE

MODULE = """
import numpy as np

WEIGHTS = np.random.default_rng(7).normal(size=(3, 6)).astype(np.float32)

def embed(pixels):
    axis = 1 if pixels.shape[1] == 3 else -1
    return np.moveaxis(pixels, axis, -1).astype(np.float32).mean((1, 2)) @ WEIGHTS

def embed_jax(pixels):
    import jax.numpy as jnp
    return jnp.mean(jnp.asarray(pixels, jnp.float32), (2, 3)) @ WEIGHTS
"""


def module_in(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (folder / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)


class TestGist(EmbedderContract):
    """The built-in descriptor."""

    bad = (({"size": 16}, "--image-size"), ({"transform": "my:transform"}, "transform"))

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
        return "gist:32", "gist"


class TestPython(EmbedderContract):
    """Any Python callable."""

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
        module_in(tmp_path, monkeypatch, "contract_python")
        return "python:contract_python:embed", "python:contract_python:embed?version=2"


class TestPythonNhwc(TestPython):
    """The same on channels-last float pixels."""

    pixels = PlainPixels(dtype="float32", layout="NHWC")


class TestJax(EmbedderContract):
    """A JAX function."""

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
        module_in(tmp_path, monkeypatch, "contract_jax")
        return "jax:contract_jax:embed_jax", "jax:contract_jax:embed_jax?version=2"


class TestOnnx(EmbedderContract):
    """A model with a free batch dimension."""

    pixels = PlainPixels(size=8, dtype="float32")
    bad = (
        ({"size": 16}, "--image-size 8"),
        ({"dtype": "uint8"}, "--dtype float32"),
        ({"layout": "NHWC"}, "layout=NCHW"),
    )
    batch_dimension: int | str = "n"

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
        pytest.importorskip("onnxruntime")
        paths = [str(tmp_path / f"{seed}.onnx") for seed in (1, 2)]
        for seed, path in enumerate(paths):
            write_model(path, self.batch_dimension, seed)
        return f"onnx:{paths[0]}?threads=1", f"onnx:{paths[1]}?threads=1"


class TestOnnxFixedBatch(TestOnnx):
    """A model that takes exactly two pictures, which divides neither the capacity nor most row counts."""

    batch_dimension = 2


@pytest.mark.slow
class TestTritonHttp(EmbedderContract):
    """A model on a real Triton server, asked from a plain thread."""

    pixels = PlainPixels(size=64)
    bad = (
        ({"size": 16}, "--image-size 64"),
        ({"dtype": "float32"}, "--dtype uint8"),
        ({"layout": "NHWC"}, "layout=NCHW"),
    )
    protocol = "http"

    @pytest.fixture
    def made(self, triton: TritonServer) -> tuple[str, str]:
        host = triton.http if self.protocol == "http" else triton.grpc
        return f"triton+{self.protocol}://{host}/mean_u8", f"triton+{self.protocol}://{host}/faulty"


@pytest.mark.slow
class TestTritonGrpc(TestTritonHttp):
    """The same over gRPC."""

    protocol = "grpc"


def write_model(path: str, rows: int | str, seed: int) -> None:
    """Global average pool and a random projection to 6 floats."""
    onnx: Any = pytest.importorskip("onnx")
    helper = onnx.helper
    weights = np.random.default_rng(seed).normal(size=(3, 6)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["vector"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [rows, 3, 8, 8])],
        [helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, [rows, 6])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def test_a_preprocessing_specification_is_what_embedders_ask_for() -> None:
    """PreprocessSpec satisfies `Pixels` without either importing the other; the static checkers hold it too."""
    spec: Pixels = PreprocessSpec(size=32, resize=None, dtype="uint8")
    with parse_embedder("gist:32") as embedder:
        embedder.open(spec, 2)
        view = batch(embedder, pictures(spec, 2))
        embedder.embed(view, 2)
    assert view.embeddings.any(axis=1).all()


def test_nonfinite_rows_finds_each_bad_row() -> None:
    """NaN and both infinities are found, each row once."""
    vectors = np.zeros((5, 3), np.float32)
    vectors[1, 0], vectors[3, 2], vectors[4] = np.nan, -np.inf, np.inf
    assert nonfinite_rows(vectors) == [1, 3, 4]


def test_parsing_imports_neither_jax_nor_onnxruntime() -> None:
    """The parent of a streaming job parses embedders and asks for fingerprints; no backend may come with that."""
    program = (
        "import sys; from penstock.engine.embedders import parse_embedder\n"
        "parse_embedder('onnx:no.onnx')\n"
        "[parse_embedder(s).fingerprint for s in ('gist', 'jax:json:dumps', 'python:json:loads')]\n"
        "found = {'jax', 'onnxruntime', 'onnx'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE)
