"""Real Milvus servers on this machine: the full one, and Milvus Lite's own server.

The full one is what comes inside the ``milvus`` 2.3.5 package: standalone, with embedded etcd and storage. It listens
on all interfaces, etcd on fixed ports, so it gets a network of its own (root) and a relay into it.
"""

from __future__ import annotations

import json
import lzma
import os
import platform
import re
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ...errors import ServerUnavailableError
from .guarded import Command, Guarded
from .ports import free_ports, listens
from .server import Server, http_ok
from .venvs import server_venv, site_packages

_MILVUS = "milvus==2.3.5"
_PORT, _HEALTH_PORT = 19530, 9091
# With sessions of 30 s, Milvus' own default, a collection answers 35 s after a kill instead of 10-15 s.
_DEFAULTS = {"log.level": "warn", "common.session.ttl": 10}


def milvus_venv(say: Callable[[str], None] | None = None) -> Path:
    """The environment with the full server, its binaries unpacked once (10 s to a minute; 270 MB).

    Raises:
        ServerUnavailableError: not for this machine, or the package cannot be had.
    """
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise ServerUnavailableError(f"there is no Milvus package for {platform.system()} on {platform.machine()}")
    return server_venv("milvus", (), alone=[_MILVUS], finish=_unpack, say=say)


class MilvusServer(Server):
    """Milvus 2.3.5 with an empty data folder, which goes with it. Ready in 2.5 s, after a kill in 10 to 15 s.

    Args:
        config: settings of ``milvus.yaml``, by dotted name: ``{"common.security.authorizationEnabled": True}``.
        start_timeout: seconds until it must be ready.
    """

    name: ClassVar[str] = "Milvus"

    def __init__(self, *, config: Mapping[str, Any] | None = None, start_timeout: float = 180.0) -> None:
        super().__init__(start_timeout)
        self._config = dict(config or {})
        self._venv = Path()

    @property
    def uri(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._guarded.ports[0]}"

    @property
    def data_dir(self) -> Path:
        """Its local storage. ``do_bulk_insert`` reads files below it by their absolute path."""
        return self._guarded.folder / "data"

    def ready(self) -> bool:
        """Whether all its parts say that they are healthy."""
        return http_ok(self._guarded.ports[1], "/healthz")

    def _prepare(self) -> Guarded:
        self._venv = milvus_venv()
        guarded = Guarded("milvus", inner_ports=(_PORT, _HEALTH_PORT))
        _write_config(_package(self._venv), guarded.folder, self._config)
        return guarded

    def _command(self, guarded: Guarded) -> Command:
        binaries = self._venv / "milvus"
        env = {
            "LD_LIBRARY_PATH": str(binaries),
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(_HEALTH_PORT),
            "MILVUS_RUN_DIR": str(guarded.folder / "run"),
            "HOME": str(guarded.folder),
            "PATH": os.defpath,
        }
        return Command([str(binaries / "milvus"), "run", "standalone"], env, guarded.folder)


class MilvusLiteServer(Server):
    """``milvus-lite server`` of the version installed here, on a free port of 127.0.0.1. Ready in 1.5 s.

    Args:
        data_dir: kept when it ends; None for one that goes with it.
        start_timeout: seconds until it must be ready.
    """

    name: ClassVar[str] = "Milvus Lite"

    def __init__(self, data_dir: Path | None = None, *, start_timeout: float = 60.0) -> None:
        super().__init__(start_timeout)
        self._data_dir = data_dir
        self._port = 0

    @property
    def uri(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def data_dir(self) -> Path:
        """Where it keeps its data."""
        return (self._data_dir or self._guarded.folder / "data").absolute()

    def ready(self) -> bool:
        """Whether it accepts connections: it does so when it has opened its data."""
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        except OSError:
            return False
        return True

    def _prepare(self) -> Guarded:
        return Guarded("milvus-lite")

    def _choose_ports(self) -> None:
        (self._port,) = free_ports(1)

    def _is_ours(self) -> bool:
        return listens(self.pid, self._port)

    def _command(self, guarded: Guarded) -> Command:
        where = ["--data-dir", str(self.data_dir), "--host", "127.0.0.1", "--port", str(self._port)]
        argv = [sys.executable, "-m", "milvus_lite.cmdline", "server", *where]
        env = {name: value for name, value in os.environ.items() if name != "MILVUS_TOKEN"}
        return Command(argv, {**env, "PYTHONSAFEPATH": "1"}, guarded.folder)


def _package(venv: Path) -> Path:
    return site_packages(venv) / "milvus" / "data"


def _unpack(venv: Path) -> None:
    """What the package does for each data folder: once is enough."""
    target = venv / "milvus"
    target.mkdir()
    for packed in sorted((_package(venv) / "bin").glob("*.lzma")):
        unpacked = target / packed.stem
        unpacked.write_bytes(lzma.decompress(packed.read_bytes()))
        unpacked.chmod(0o755)
        packed.unlink()


def _write_config(package: Path, folder: Path, changes: Mapping[str, Any]) -> None:
    """``configs/`` in the server's folder: the package's template with its defaults, our paths, and these changes."""
    data = folder / "data"
    places = {"etcd_data_dir": data / "etcd.data", "local_storage_dir": data, "rocksmq_data_dir": data / "rocksmq"}
    places["etcd_log_path"] = folder / "etcd.log"

    def value(match: re.Match[str]) -> str:
        return str(places.get(match["name"], (match["default"] or "").strip()))

    template = (package / "config.yaml.template").read_text()
    config = yaml.safe_load(re.sub(r"\{\{\s*(?P<name>\w+)(?:\(\w+\))?\s*(?::(?P<default>[^}]*))?\}\}", value, template))
    for name, setting in {**_DEFAULTS, **changes}.items():
        *path, last = name.split(".")
        section = config
        for part in path:
            section = section.setdefault(part, {})
        section[last] = setting
    (folder / "configs").mkdir()
    data.mkdir()
    (folder / "configs" / "milvus.yaml").write_text(json.dumps(config))  # JSON is YAML
    (folder / "configs" / "glog.conf").write_bytes((package / "glog.conf").read_bytes())
