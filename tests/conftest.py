"""What every test relies on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from shutil import copytree
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.engine.core.hub import Hub
from penstock.engine.servers import (
    MilvusLiteServer,
    MilvusServer,
    MotoServer,
    S3Server,
    SeaweedServer,
    ServerUnavailableError,
    Tensor,
    TritonServer,
    add_model,
    milvus_venv,
    triton_venv,
)
from penstock.engine.servers.server import Server
from penstock.engine.servers.venvs import servers_folder
from penstock.engine.workers import pictures, warm_start
from penstock.engine.workers.picture_server import PRELOAD
from penstock.engine.workers.shared_fork_server import SharedForkServer
from penstock.object_stores import ObjectStore
from penstock.preprocess.worker.jax_runtime import worker_environment
from penstock.shm import Zygote
from penstock.tests.children import ENTRIES
from penstock.tests.clips import make_clip
from penstock.tests.slots import SlotWatch
from penstock.tests.small_s3 import ENVIRONMENT, SmallS3, served
from penstock.tests.video_server import VideoServer
from penstock.tests.video_server import served as video_server_of

_Server = TypeVar("_Server", bound=Server)

# A shell starts background jobs with SIGINT ignored, which all children inherit: tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Servers take minutes to install: their environments stay where the user's are, also when the cache is redirected.
os.environ["PENSTOCK_SERVERS"] = str(servers_folder())

TRITON_FILES: Mapping[str, Path] = {
    "means": Path(__file__).parent / "triton_models" / "means.py",
    "subsample": Path(__file__).parent.parent / "bench" / "models" / "subsample.py",
}

TRITON_MODELS: Mapping[str, tuple[str, str, Sequence[int], int, Mapping[str, str]]] = {
    # name: one of TRITON_FILES, type and dims of the input PIXELS, length of the output VECTORS, parameters
    "mean_u8": ("means", "UINT8", (3, 64, 64), 16, {}),
    "mean_f32": ("means", "FP32", (3, 64, 64), 16, {}),
    "nhwc_f32": ("means", "FP32", (64, 64, 3), 16, {"layout": "NHWC"}),
    "faulty": ("means", "UINT8", (3, 64, 64), 16, {"marks": "yes"}),
    "subsample_u8": ("subsample", "UINT8", (3, 224, 224), 512, {}),
    "subsample_f32": ("subsample", "FP32", (3, 224, 224), 512, {}),
    "sleeper": ("subsample", "UINT8", (3, 224, 224), 512, {"sleep_ms": "40"}),
}
"""Real models for real servers; none needs more than numpy. What they do: see the files."""


@contextmanager
def closing_server(server: _Server) -> Generator[_Server]:
    """Start it and stop it; where this machine cannot run it the test is skipped, in CI it fails."""
    try:
        server.start()
    except ServerUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


def add_test_model(repository: Path, name: str, *, instances: int = 1, **parameters: str) -> None:
    """One of `TRITON_MODELS`, with other parameters if need be."""
    file, dtype, dims, length, own = TRITON_MODELS[name]
    add_model(
        repository,
        name,
        TRITON_FILES[file],
        inputs=[Tensor("PIXELS", dtype, dims)],
        outputs=[Tensor("VECTORS", "FP32", (length,))],
        instances=instances,
        parameters={**own, **parameters},
    )


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One compilation cache for the test run: neither the user's, nor none (each worker would compile anew)."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp().parent / "penstock-cache")
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def _slot_watch() -> Iterator[SlotWatch]:
    watch = SlotWatch()
    with watch.watching():
        yield watch


@pytest.fixture(autouse=True)
def _no_slot_is_lost(request: pytest.FixtureRequest, _slot_watch: SlotWatch) -> Iterator[None]:
    """Every slot of every worker pool is free again when a test is over, unless it is marked `holds_slots`."""
    yield
    lost = _slot_watch.lost()
    if request.node.get_closest_marker("holds_slots") is None:
        assert not lost, "slots that nobody has given back"


@pytest.fixture(scope="session", autouse=True)
def _fork_server(_compilation_cache: None) -> Iterator[None]:
    """One fork server for all pools of the test run: each would import JAX anew, which takes longer than most tests."""
    with warm_start():
        yield


@pytest.fixture
def own_fork_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that reads what workers print: they inherit standard error from the fork server, which has it from
    whoever started it."""
    monkeypatch.setattr(pictures, "PICTURE_SERVER", SharedForkServer(PRELOAD, worker_environment))


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that runs commands here: the current folder is its own, and the user's environment says nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_DEBUG", raising=False)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub of the engine in a test's own thread."""
    hub = Hub()
    hub.open()
    yield hub
    hub.destroy()


@pytest.fixture(scope="module")
def silent() -> Iterator[None]:
    """For random pipelines: thousands of failures on purpose need not be told."""
    logger = logging.getLogger("penstock")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder on sys.path with `ENTRIES` as ``shm_entries``, which only that tells the fork server where to find."""
    folder = tmp_path_factory.mktemp("entries")
    (folder / "shm_entries.py").write_text(ENTRIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield str(folder)


@pytest.fixture(scope="module")
def zygote(entries: str) -> Iterator[Zygote]:
    """A fork server that knows them, with a preloaded module and a variable of its own."""
    with Zygote(["wave"], {"SHM_TEST_COLOR": "red", "OPENBLAS_NUM_THREADS": "1"}) as made:
        yield made


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """The real photographs that come with the project."""
    found = sorted((Path(__file__).parent.parent / "examples" / "photos").glob("*.jpg"))
    assert len(found) >= 20
    return found


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An mp4 of twelve frames whose index is at its end, as most are."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=12).read_bytes()


@pytest.fixture
def video_server(video: bytes) -> Iterator[VideoServer]:
    """Serves it in every way a server can."""
    with video_server_of(video) as server:
        yield server


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files and folders that this process has synced to the medium, in order."""
    paths: list[str] = []

    def fsync(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


@pytest.fixture(scope="session")
def triton_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with all of `TRITON_MODELS`."""
    repository = tmp_path_factory.mktemp("triton-models")
    for name in TRITON_MODELS:
        add_test_model(repository, name)
    return repository


@pytest.fixture(scope="session")
def triton(triton_models: Path) -> Iterator[TritonServer]:
    """A Triton server with all test models, shared by the tests of this process: not to be killed or paused."""
    with closing_server(TritonServer(triton_models)) as server:
        yield server


@pytest.fixture(scope="session")
def milvus_lite_server() -> Iterator[MilvusLiteServer]:
    """A ``milvus-lite server``, shared by the tests of this process: each uses collections of its own."""
    with closing_server(MilvusLiteServer()) as server:
        yield server


@pytest.fixture(scope="session")
def milvus() -> Iterator[MilvusServer]:
    """A full Milvus server, shared by the tests of this process: each uses collections of its own."""
    with closing_server(MilvusServer()) as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[Callable[[_Server], _Server]]:
    """Starts a server of the test's own, ``own_server(MilvusServer(config={...}))``; ended behind the test."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(closing_server(server))


@pytest.fixture
def make_triton(tmp_path: Path, own_server: Callable[[TritonServer], TritonServer]) -> Callable[..., TritonServer]:
    """Starts a Triton of the test's own: ``make_triton("mean_u8", "sleeper", restrict_shm=True)``.

    The fewer models, the sooner it is ready. ``sleep_ms={"sleeper": "500"}`` and ``instances=4`` change the models.
    """
    numbers = count()

    def make(
        *models: str, instances: int = 1, sleep_ms: Mapping[str, str] | None = None, **settings: Any
    ) -> TritonServer:
        repository = tmp_path / f"triton-models-{next(numbers)}"
        for name in models:
            changed = {"sleep_ms": sleep_ms[name]} if sleep_ms and name in sleep_ms else {}
            add_test_model(repository, name, instances=instances, **changed)
        return own_server(TritonServer(repository, **settings))

    return make


@pytest.fixture(scope="session")
def triton_answer() -> Callable[[str, NDArray[Any]], NDArray[np.float32]]:
    """What a test model answers, computed here: ``triton_answer("mean_u8", pixels)``."""
    modules = {file: _load(file) for file in {model[0] for model in TRITON_MODELS.values()}}

    def answer(name: str, pixels: NDArray[Any]) -> NDArray[np.float32]:
        file, *_, parameters = TRITON_MODELS[name]
        layout = {"layout": parameters["layout"]} if "layout" in parameters else {}
        vectors: NDArray[np.float32] = modules[file].vectors(pixels, **layout)
        return vectors

    return answer


def _load(file: str) -> ModuleType:
    spec = spec_from_file_location(f"triton_models_{file}", TRITON_FILES[file])
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install servers before the first test: where none is cached that may take longer than a test may."""
    used = {fixture for item in session.items for fixture in getattr(item, "fixturenames", ())}
    for prepare, fixtures in ((triton_venv, {"triton", "own_server"}), (milvus_venv, {"milvus", "own_server"})):
        if used & fixtures and not session.config.getoption("collectonly"):
            with suppress(ServerUnavailableError):  # whoever needs it will hear of it
                prepare()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests first: what is broken should be seen in seconds. Nightly ones only where they are asked for."""
    if "nightly" not in config.option.markexpr:
        nightly = [item for item in items if item.get_closest_marker("nightly")]
        items[:] = [item for item in items if item not in nightly]
        config.hook.pytest_deselected(items=nightly)
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example plugins are installed in, as a user would: pip finds their entry points."""
    copy, folder = tmp_path_factory.mktemp("source") / "plugins", tmp_path_factory.mktemp("plugins")
    copytree(Path(__file__).parent.parent / "examples" / "plugins", copy)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(copy)]
    subprocess.run(pip, check=True)
    return folder


@pytest.fixture
def with_plugins(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, seen by this process and by those it starts."""
    monkeypatch.syspath_prepend(str(plugins))
    monkeypatch.setenv("PYTHONPATH", str(plugins))
    return plugins


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that installs a package which brings plugins: their entry points, and the text of its module."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(name: str, entries: dict[str, str], module: str, group: str = "penstock.things") -> None:
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{scheme} = {value}" for scheme, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
        (tmp_path / f"{name}.py").write_text(module)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return installed


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with keys for S3 and nothing else of clouds in it; a test sets the endpoint."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def small_s3(aws: pytest.MonkeyPatch) -> Iterator[SmallS3]:
    """A small S3 of this process, to which ``s3://bucket`` leads."""
    with served(SmallS3()) as store:
        aws.setenv("AWS_ENDPOINT_URL", store.url)
        yield store


@pytest.fixture(scope="session")
def s3_servers() -> Iterator[Callable[[str], S3Server]]:
    """SeaweedFS and moto, each started when it is first asked for, and kept for the test run."""
    kinds: dict[str, type[SeaweedServer | MotoServer]] = {"seaweed": SeaweedServer, "moto": MotoServer}
    with ExitStack() as stack:
        running: dict[str, S3Server] = {}

        def server(name: str) -> S3Server:
            if name not in running:
                running[name] = stack.enter_context(closing_server(kinds[name]()))
            return running[name]

        yield server


@pytest.fixture(params=["moto", "seaweed"])
def s3_server(
    request: pytest.FixtureRequest, s3_servers: Callable[[str], S3Server], aws: pytest.MonkeyPatch
) -> S3Server:
    """A real S3 server that the environment leads to: moto for what it keeps, SeaweedFS for the truth."""
    server = s3_servers(request.param)
    for name, value in server.environment.items():
        aws.setenv(name, value)
    return server


@pytest.fixture
def seaweed(s3_servers: Callable[[str], S3Server], aws: pytest.MonkeyPatch) -> S3Server:
    """SeaweedFS alone."""
    server = s3_servers("seaweed")
    for name, value in server.environment.items():
        aws.setenv(name, value)
    return server


_buckets = count(1)


@pytest.fixture
def bucket(aws: pytest.MonkeyPatch) -> str:
    """A new bucket of the server that the test has asked for before."""
    store = ObjectStore(f"s3://bucket-{next(_buckets)}")
    store.boto3().create_bucket(Bucket=store.url.bucket)
    return store.url.bucket
