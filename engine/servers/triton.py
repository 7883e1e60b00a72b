"""A real Triton server on this machine, without docker or a GPU: the one that comes inside ``nvidia-pytriton``.

It has the python backend and no other. Only the binaries of that package are used.
Measured on 2 cores: ready in 1.6-2.2 s with three models; 40 MB, and about 38 MB for each instance of a model.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

from ...errors import ConfigError, ServerUnavailableError
from .guarded import Command, Guarded
from .ports import free_ports, is_free, listens
from .server import Server, http_ok
from .venvs import server_venv, site_packages

_PYTRITON = "nvidia-pytriton==0.7.0"
# This release's stubs misread numpy 2's arrays: outputs of 0 bytes under a right shape. No newer jax takes numpy 1.
_PACKAGES = ("numpy==1.26.4", "jax==0.6.2", "jaxlib==0.6.2", "onnxruntime==1.31.1")
_STUB = "triton_python_backend_stub"


def triton_venv(say: Callable[[str], None] | None = None) -> Path:
    """The environment of the server, made at the first call (20 s to a minute; 830 MB).

    Models find numpy, jax and onnxruntime in it.

    Raises:
        ServerUnavailableError: not for this machine, or the packages cannot be had.
    """
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise ServerUnavailableError(f"there is no Triton for {platform.system()} on {platform.machine()}")
    return server_venv("triton", _PACKAGES, alone=[_PYTRITON], finish=_lay_out_backend, say=say)


class TritonServer(Server):
    """Triton over one or several model repositories, on free ports of 127.0.0.1.

    Args:
        repositories: the folders with the models; see `add_model`.
        restrict_shm: refuse clients that want to register shared memory, as newer releases do by default.
        private_shm: give it a /dev/shm of its own: it sees none of our segments, as on another host. Needs root.
        model_control: ``"explicit"`` to load and unload models by request; none is loaded then at the start.
        http_port: 0 for a free one. `start` raises ConfigError if it is taken.
        start_timeout: seconds until all models must be ready.

    A restarted server has forgotten all registrations. It is always ended by SIGKILL: it keeps nothing, and a clean
    exit takes 4 s for one model instance, 12 for ten.
    """

    name: ClassVar[str] = "Triton"

    def __init__(
        self,
        *repositories: Path,
        restrict_shm: bool = False,
        private_shm: bool = False,
        model_control: Literal["none", "explicit"] = "none",
        http_port: int = 0,
        start_timeout: float = 60.0,
    ) -> None:
        super().__init__(start_timeout)
        self._repositories = [repository.absolute() for repository in repositories]
        self._restrict_shm = restrict_shm
        self._private_shm = private_shm
        self._model_control = model_control
        self._http_port = http_port
        self._venv = Path()
        # What the server itself keeps in /dev/shm has this name: to be removed by us and taken for nobody else's.
        self._prefix = f"triton_python_backend_shm_region_{secrets.token_hex(8)}_"
        self._ports = (0, 0, 0)

    @property
    def http(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def grpc(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self._ports[1]}"

    @property
    def metrics(self) -> str:
        """``127.0.0.1:PORT``, with the path ``/metrics``."""
        return f"127.0.0.1:{self._ports[2]}"

    def ready(self) -> bool:
        """Whether it says that all its models are ready; False also when it does not answer within a second."""
        return http_ok(self._ports[0], "/v2/health/ready")

    def _prepare(self) -> Guarded:
        self._venv = triton_venv()
        return Guarded("triton", shm_prefix=self._prefix, private_shm=self._private_shm)

    def _choose_ports(self) -> None:
        if self._http_port and not is_free(self._http_port):
            raise ConfigError(f"port {self._http_port} of 127.0.0.1 is taken: choose another, or 0 for a free one")
        http, grpc, metrics = free_ports(3)
        self._ports = (self._http_port or http, grpc, metrics)

    def _is_ours(self) -> bool:
        return listens(self.pid, self._ports[0])

    def _command(self, guarded: Guarded) -> Command:
        options = [
            *(f"--model-repository={repository}" for repository in self._repositories),
            f"--backend-directory={_backend(self._venv).parent}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            f"--model-control-mode={self._model_control}",
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
        ]
        for service, port in zip(("http", "grpc", "metrics"), self._ports, strict=True):
            options += [f"--{service}-address=127.0.0.1", f"--{service}-port={port}"]
        if self._restrict_shm:
            key = f"shared-memory:penstock-key={secrets.token_hex(16)}"
            options += [f"--http-restricted-api={key}", f"--grpc-restricted-protocol={key}"]
        program = str(_binaries(self._venv) / "bin" / "tritonserver")
        return Command([program, *options], _environment(self._venv), guarded.folder)


def _binaries(venv: Path) -> Path:
    return site_packages(venv) / "pytriton" / "tritonserver"


def _environment(venv: Path) -> dict[str, str]:
    """The stubs find numpy through the first ``python3`` on the path, and what they link to through the loader's."""
    return {
        "PATH": os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join([str(site_packages(venv) / "nvidia_pytriton.libs"), str(_backend(venv))]),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "ORT_DISABLE_TELEMETRY": "1",
        # One thread for each instance: with as many as cores, the pools of two models take each other's time.
        **dict.fromkeys(("NPROC", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        **({"XDG_CACHE_HOME": cache} if (cache := os.environ.get("XDG_CACHE_HOME")) else {}),
    }


def _backend(venv: Path) -> Path:
    return venv / "backends" / "python"


def _lay_out_backend(venv: Path) -> None:
    """The python backend as the server wants it: the stub for this version of Python beside it."""
    about = "import sysconfig as s; print(s.get_python_version(), *s.get_config_vars('LIBDIR', 'INSTSONAME'))"
    python, folder, library = _output([str(venv / "bin" / "python"), "-c", about]).split()
    stub = _binaries(venv) / "python_backend_stubs" / python / _STUB
    if not stub.exists():
        raise ServerUnavailableError(f"{_PYTRITON} has no python backend for Python {python}")
    shutil.copytree(_binaries(venv) / "backends" / "python", _backend(venv))
    shutil.copy2(stub, _backend(venv))
    if library in _missing(venv) and Path(folder, library).exists():  # a Python outside of the loader's folders
        (_backend(venv) / library).symlink_to(Path(folder, library))
    if missing := _missing(venv):
        raise ServerUnavailableError(
            f"Triton's python backend needs {', '.join(missing)}; on Debian: apt install libpython{python}"
        )


def _missing(venv: Path) -> list[str]:
    """Libraries that the loader would not find for the stub."""
    lines = _output(["ldd", str(_backend(venv) / _STUB)], _environment(venv)).splitlines()
    return [line.split()[0] for line in lines if "not found" in line]


def _output(argv: list[str], env: dict[str, str] | None = None) -> str:
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False).stdout
