"""The real servers that demo, benchmarks and tests use: they start, die and come back as told, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from penstock.engine.cli import main
from penstock.engine.embedders import ArrayView, Gist
from penstock.engine.servers import (
    MilvusLiteServer,
    MilvusServer,
    ServerError,
    ServerUnavailableError,
    TritonServer,
    add_model,
    triton,
)
from penstock.engine.servers.models import add_gist, add_onnx
from penstock.engine.servers.ports import free_ports
from penstock.engine.servers.repository import Tensor
from penstock.errors import ConfigError
from penstock.tests.waiting import DEADLINE, wait_until


def gone(pid: int) -> bool:
    """Whether a process is no more (a zombie is one that nobody has waited for)."""
    return not psutil.pid_exists(pid)


def infer(server: TritonServer, model: str, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """One request by HTTP, pixels in its body."""
    client_module: Any = pytest.importorskip("tritonclient.http")
    client = client_module.InferenceServerClient(server.http)
    try:
        names = client.get_model_metadata(model)
        tensor = client_module.InferInput(names["inputs"][0]["name"], pixels.shape, names["inputs"][0]["datatype"])
        tensor.set_data_from_numpy(pixels)
        vectors: NDArray[np.float32] = client.infer(model, [tensor]).as_numpy(names["outputs"][0]["name"])
        return vectors
    finally:
        client.close()


def pictures(rows: int, size: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(rows).integers(0, 250, (rows, 3, size, size), np.uint8)


# -- Triton --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_answers_exactly_as_its_model_says(
    triton: TritonServer, triton_answer: Callable[[str, NDArray[Any]], NDArray[np.float32]]
) -> None:
    """uint8 and float32, both layouts: the vectors that numpy computes here."""
    for name in ("mean_u8", "mean_f32", "faulty"):
        pixels = pictures(5).astype(np.float32 if name.endswith("f32") else np.uint8)
        np.testing.assert_array_equal(infer(triton, name, pixels), triton_answer(name, pixels))
    pixels = np.ascontiguousarray(pictures(3).transpose(0, 2, 3, 1), np.float32)
    np.testing.assert_array_equal(infer(triton, "nhwc_f32", pixels), triton_answer("nhwc_f32", pixels))
    for name in ("subsample_u8", "subsample_f32", "sleeper"):
        pixels = pictures(2, 224).astype(np.float32 if name.endswith("f32") else np.uint8)
        np.testing.assert_array_equal(infer(triton, name, pixels), triton_answer(name, pixels))


@pytest.mark.slow
def test_a_killed_server_comes_back_on_the_same_ports(make_triton: Callable[..., TritonServer]) -> None:
    """Kill, restart, pause, resume; and after the end nothing of it is left."""
    server = make_triton("mean_u8")
    where, pids = (server.http, server.grpc, server.metrics), _all_of(server.pid)
    assert len(pids) == 2, "the server and the stub of its model"
    server.kill()
    assert all(gone(pid) for pid in pids)
    assert not server.alive()
    assert not server.ready()
    server.restart()
    assert (server.http, server.grpc, server.metrics) == where
    infer(server, "mean_u8", pictures(1))
    server.pause()
    assert not server.ready()
    assert server.alive()
    server.resume()
    assert server.ready()
    pids = _all_of(server.pid)
    server.stop()
    assert all(gone(pid) for pid in pids)
    assert not _regions(server)


def _all_of(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _regions(server: TritonServer) -> list[Path]:
    prefix: str = vars(server)["_prefix"]
    return list(Path("/dev/shm").glob(f"{prefix}*"))


STARTER = """
import signal, sys
from pathlib import Path
from penstock.engine.servers import TritonServer
server = TritonServer(Path(sys.argv[1])).start()
print(server.pid, server._prefix, server.log.parent, flush=True)
signal.pause()
"""


@pytest.mark.slow
def test_a_triton_whose_starter_is_killed_leaves_nothing(triton: TritonServer, triton_models: Path) -> None:
    """No process, no folder, no file in /dev/shm."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(triton_models)], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid, prefix, folder = starter.stdout.readline().split()
        pids = _all_of(int(pid))
        assert len(list(Path("/dev/shm").glob(f"{prefix}*"))) == len(pids) - 1
        starter.kill()
    wait_until(lambda: all(gone(each) for each in pids), "all processes end")
    wait_until(lambda: not Path(folder).exists(), "the folder goes")
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))
    assert _regions(triton), "another server keeps what is its own"


@pytest.mark.slow
def test_a_taken_port_makes_it_choose_others(
    make_triton: Callable[..., TritonServer], monkeypatch: pytest.MonkeyPatch, triton: TritonServer
) -> None:
    """Between the choice of a port and its use somebody else may have taken it."""
    taken = int(triton.http.rpartition(":")[2])
    choices = [[taken, *free_ports(2)], free_ports(3)]
    monkeypatch.setattr("penstock.engine.servers.triton.free_ports", lambda _: choices.pop(0))
    server = make_triton("mean_u8")
    assert not choices
    assert server.http != triton.http
    with pytest.raises(ConfigError, match="is taken"):
        TritonServer(Path(), http_port=taken).start()


@pytest.mark.slow
def test_a_model_that_does_not_load_is_said(triton: TritonServer, tmp_path: Path) -> None:
    """The error ends with the server's own words."""
    del triton  # Triton can run here
    vector = [Tensor("X", "FP32", (1,))]
    add_model(tmp_path, "broken", "raise RuntimeError('not today')", inputs=vector, outputs=vector)
    with pytest.raises(ServerError, match="not today"):
        TritonServer(tmp_path).start()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "answer"),
    [({"restrict_shm": True}, "restricted"), ({"private_shm": True}, "Unable to open shared memory region")],
)
def test_shared_memory_can_be_refused(
    make_triton: Callable[..., TritonServer], settings: dict[str, bool], answer: str
) -> None:
    """As a newer release refuses it, and as a server on another host cannot have it; bodies work in both."""
    client_module: Any = pytest.importorskip("tritonclient.http")
    server = make_triton("mean_u8", **settings)
    segment = Path("/dev/shm", "penstock-test-" + os.urandom(8).hex())
    segment.write_bytes(bytes(4096))
    client = client_module.InferenceServerClient(server.http)
    try:
        with pytest.raises(Exception, match=answer):
            client.register_system_shared_memory("region", f"/{segment.name}", 4096)
    finally:
        client.close()
        segment.unlink()
    infer(server, "mean_u8", pictures(1))


@pytest.mark.slow
def test_gist_over_triton_equals_gist_in_this_process(
    own_server: Callable[[TritonServer], TritonServer], tmp_path: Path
) -> None:
    """It is the same code, for any number of pictures; so vectors of both go into one collection."""
    add_gist(tmp_path)
    server = own_server(TritonServer(tmp_path))
    for rows in (1, 8, 21):
        pixels = pictures(rows)
        here = ArrayView(pixels, np.empty((rows, 512), np.float32))
        with Gist() as gist:
            spec: Any = SimpleNamespace(size=64, dtype="uint8", layout="NCHW", mean=None, std=None, transform=None)
            gist.open(spec, rows)
            gist.embed(here, rows)
        np.testing.assert_allclose(infer(server, "gist", pixels), here.embeddings, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["n", 4])
def test_an_onnx_file_over_triton_equals_onnx_runtime_here(
    own_server: Callable[[TritonServer], TritonServer], tmp_path: Path, batch: str | int
) -> None:
    """Under its own names, for any number of rows, also where the file fixes the number."""
    file = tmp_path / "model.onnx"
    write_onnx(file, batch)
    add_onnx(tmp_path / "models", file)
    server = own_server(TritonServer(tmp_path / "models"))
    pixels = pictures(8, 16).astype(np.float32)
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    here = np.concatenate([session.run(["embedding"], {"image": pixels[i : i + 4]})[0] for i in (0, 4)])
    np.testing.assert_allclose(infer(server, "onnx", pixels), here, rtol=1e-6)
    np.testing.assert_allclose(infer(server, "onnx", pixels[:3]), here[:3], rtol=1e-6)


def write_onnx(file: Path, batch: str | int) -> None:
    """Float32 ``image`` [batch, 3, 16, 16] -> ``embedding`` [batch, 7]."""
    onnx: Any = pytest.importorskip("onnx")
    from onnx import helper

    weights = np.random.default_rng(0).normal(size=(3 * 16 * 16, 7)).astype(np.float32)
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ],
        "model",
        [helper.make_tensor_value_info("image", float32, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("embedding", float32, [batch, 7])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(file))


def test_a_file_that_is_no_model_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """Not by a server that dies."""
    with pytest.raises(ConfigError, match="there is no file"):
        add_onnx(tmp_path, tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError, match="cannot load"):
        add_onnx(tmp_path, tmp_path / "bad.onnx")


def test_a_machine_without_triton_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unavailable, with the reason; not an error of pip."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ServerUnavailableError, match="riscv64"):
        triton.triton_venv()


# -- Milvus --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MilvusLiteServer, pytest.param(MilvusServer, marks=pytest.mark.nightly)])
def test_a_killed_milvus_has_all_rows_when_it_comes_back(
    own_server: Callable[[Any], Any], kind: type[MilvusLiteServer | MilvusServer]
) -> None:
    """At the same address; and after the end neither process nor data is left."""
    from pymilvus import MilvusClient

    server = own_server(kind())
    uri, data, pid = server.uri, server.data_dir, server.pid
    client: Any = MilvusClient(uri)
    client.create_collection("rows", dimension=4, consistency_level="Strong")
    client.upsert("rows", [{"id": i, "vector": [1.0, 2.0, 3.0, i]} for i in range(10)])
    client.close()
    server.kill()
    assert gone(pid)
    server.restart()
    assert server.uri == uri
    client = MilvusClient(uri)
    client.load_collection("rows", timeout=DEADLINE)
    assert client.query("rows", output_fields=["count(*)"], timeout=DEADLINE)[0]["count(*)"] == 10
    client.close()
    pid = server.pid
    server.stop()
    assert gone(pid)
    assert not data.exists()


@pytest.mark.slow
def test_the_full_milvus_listens_on_the_loopback_only(milvus: MilvusServer) -> None:
    """It opens a dozen ports on all interfaces: of a network where nobody else is."""
    from pymilvus import MilvusClient

    client: Any = MilvusClient(milvus.uri)
    assert "2.3.5" in client.get_server_version()
    client.close()
    assert milvus.uri.startswith("http://127.0.0.1:")
    assert not Path("/proc", str(milvus.pid), "ns", "net").samefile("/proc/self/ns/net")


@pytest.mark.slow
def test_the_full_milvus_takes_settings(own_server: Callable[[MilvusServer], MilvusServer]) -> None:
    """Any setting of its file by dotted name; here: who does not log in gets nothing."""
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    server = own_server(MilvusServer(config={"common.security.authorizationEnabled": True}))
    with pytest.raises(MilvusException):
        MilvusClient(server.uri, timeout=3)
    client: Any = MilvusClient(server.uri, token="root:Milvus")
    assert client.list_collections() == []
    client.close()


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_demo_serves_until_interrupted(triton: TritonServer, tmp_path: Path, number: signal.Signals) -> None:
    """It says what to do next, serves GIST and a file of the user's, and ends with status 0 and nothing left."""
    del triton  # Triton can run here
    write_onnx(tmp_path / "mine.onnx", "n")
    command = [sys.executable, "-m", "penstock", "serve-demo", "--port", "0", "--onnx", "mine.onnx"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as demo:
        try:
            assert demo.stdout is not None
            lines = [demo.stdout.readline() for _ in range(5)]
            gist, onnx, _, next_command, _ = lines
            assert next_command.strip() == f"penstock embed PICTURES --to photos.db --embedder {gist.split()[-1]}"
            assert onnx.split()[-1].endswith("/onnx")
            served: Any = SimpleNamespace(http=gist.split()[-1].removeprefix("triton+http://").removesuffix("/gist"))
            assert infer(served, "gist", pictures(2)).shape == (2, 512)
            assert infer(served, "onnx", pictures(2, 16).astype(np.float32)).shape == (2, 7)
            children = psutil.Process(demo.pid).children(recursive=True)
            assert len(children) == 4, "guardian, server, and a stub for each model"
        except BaseException:
            demo.send_signal(signal.SIGINT)  # else the end of this block would wait for it for ever
            raise
        demo.send_signal(number)
        out, err = demo.communicate(timeout=DEADLINE)
    assert demo.returncode == 0, out + err
    assert "Traceback" not in err
    assert all(gone(child.pid) for child in children)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.onnx"]


def test_serve_demo_refuses_what_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Wrong usage, before anything is installed or started."""
    assert main(["serve-demo", "--onnx", str(tmp_path / "none.onnx")]) == 2
    assert main(["serve-demo", "--models", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("there is no") == 2


def test_serve_demo_refuses_a_folder_without_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It would serve as if all were well, without the model that the user came for; one with a model is one."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.onnx").touch()
    assert main(["serve-demo", "--models", str(tmp_path)]) == 2
    assert "there is no model in" in capsys.readouterr().err
    (tmp_path / "mine" / "1").mkdir()
    assert main(["serve-demo", "--models", str(tmp_path), "--onnx", str(tmp_path / "none.onnx")]) == 2
    assert "there is no model in" not in capsys.readouterr().err
