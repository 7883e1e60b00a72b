"""Where a model is served: ``triton+http://host:port[,host:port...]/model[?option=value&option=value]``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

from ....errors import ConfigError
from ..base import Options, no_options, spec_string

Protocol = Literal["http", "grpc"]
Shm = Literal["auto", "off"]

_PORTS: Final[dict[Protocol, int]] = {"http": 8000, "grpc": 8001}
_OPTIONS: Final = ("version", "input", "output", "concurrency", "timeout", "patience", "shm", "dimension")

TIMEOUT: Final = 30.0
PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """One server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """What the spec string says.

    Attributes:
        protocol: how the servers are spoken to.
        servers: those that serve the model, all alike.
        model: its name.
        version: its version; None: the newest one at the start, and that one to the end.
        input: the input that takes the pictures; None: the only one.
        output: the output that holds the vectors; None: the only one that can.
        concurrency: requests under way at one server at once; None: enough to keep the model's instances busy.
        timeout: seconds a request may take before its batch is sent again.
        patience: seconds without any answer after which the job is given up.
        shm: ``auto``: shared memory where the server can reach it; ``off``: pixels always travel in the request.
        dimension: floats of a vector, for a model that does not say it.
    """

    protocol: Protocol
    servers: tuple[HostPort, ...]
    model: str
    version: str | None = None
    input: str | None = None
    output: str | None = None
    concurrency: int | None = None
    timeout: float = TIMEOUT
    patience: float = PATIENCE
    shm: Shm = "auto"
    dimension: int | None = None

    @property
    def spec(self) -> str:
        """The string it is read from; what is as by default is left out."""
        hosts = ",".join(str(server) for server in self.servers)
        return spec_string(
            f"triton+{self.protocol}://{hosts}/{quote(self.model, safe='')}",
            version=self.version,
            input=self.input,
            output=self.output,
            concurrency=self.concurrency,
            timeout=None if self.timeout == TIMEOUT else f"{self.timeout:g}",
            patience=None if self.patience == PATIENCE else f"{self.patience:g}",
            shm=None if self.shm == "auto" else self.shm,
            dimension=self.dimension,
        )


def read_address(protocol: Protocol, rest: str, options: Options) -> Address:
    """Read what stands after ``triton+http:`` or ``triton+grpc:``.

    Raises:
        ConfigError: it is not of that form; the message says what is wrong with it.
    """
    if "@" in rest:
        # Specs are printed, logged and kept with the job; so are refusals, which is why this one comes first.
        raise ConfigError(f"embedder triton+{protocol}: put no user or password (no @) into the address")
    where = f"triton+{protocol}:{rest}"
    no_options(where, options, _OPTIONS)
    hosts, slash, model = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not slash or not model.strip("/") or "/" in model.strip("/"):
        example = f"triton+{protocol}://localhost:{_PORTS[protocol]}/my_model"
        raise ConfigError(f"embedder {where}: write triton+{protocol}://host:port/model, e.g. {example}")
    servers = tuple(_server(where, protocol, text) for text in hosts.split(","))
    if len(set(servers)) < len(servers):
        raise ConfigError(f"embedder {where}: a server is named twice")
    values = {name: _READERS[name](where, name, text) for name, text in options.items()}
    return Address(protocol, servers, unquote(model.strip("/")), **values)


def _server(where: str, protocol: Protocol, text: str) -> HostPort:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    host, port = (host, port) if colon else (text, str(_PORTS[protocol]))
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    plain = bare and not any(c.isspace() or c in "[]/?#%" for c in bare) and (":" not in bare or bare != host)
    if not (plain and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise ConfigError(f"embedder {where}: {text!r} is no host:port, e.g. localhost:{_PORTS[protocol]}")
    return HostPort(bare, int(port))


def _text(where: str, name: str, text: str) -> str:
    if not text:
        raise ConfigError(f"embedder {where}: {name}= is empty")
    return text


def _count(where: str, name: str, text: str) -> int:
    if not (text.isdecimal() and len(text) < 7 and int(text) > 0):
        raise ConfigError(f"embedder {where}: {name}={text!r} must be a positive integer")
    return int(text)


def _version(where: str, name: str, text: str) -> str:
    return str(_count(where, name, text))


def _seconds(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < 1e6):
        raise ConfigError(f"embedder {where}: {name}={text!r} must be a positive number of seconds")
    return value


def _shm(where: str, name: str, text: str) -> Shm:
    if text not in ("auto", "off"):
        raise ConfigError(f"embedder {where}: {name}={text!r} must be auto or off")
    return "off" if text == "off" else "auto"


_READERS: Final[dict[str, Callable[[str, str, str], Any]]] = {
    "version": _version,
    "input": _text,
    "output": _text,
    "concurrency": _count,
    "timeout": _seconds,
    "patience": _seconds,
    "shm": _shm,
    "dimension": _count,
}
