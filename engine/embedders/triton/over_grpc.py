"""KServe v2 over gRPC, by Triton's own client (the extra ``penstock[triton]``).

Its calls block their thread: on a hub they run in the embedder's own pool of threads. ``grpc.experimental.gevent``
would do without threads, but it changes how every channel of the process waits, pymilvus' and the host's included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from ....errors import ConfigError
from .address import HostPort
from .io_backend import IoBackend
from .transport import CONTROL_SECONDS, Answer, Query, ServerError, Shared

T = TypeVar("T")

_STATUS: Final = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 400,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNIMPLEMENTED": 501,
}
"""Codes with which the server has answered; the others may as well come from the client's own side."""

_NEVER_THERE: Final = re.compile(r"connection refused|failed to connect to all addresses", re.I)
_CUT: Final = re.compile(r"socket closed|connection reset|broken pipe|connection aborted", re.I)
_SERVERS_OWN: Final = re.compile(r"request for unknown model|restricted|server is |queue size", re.I)
"""UNAVAILABLE is said by servers and by the client's own side; these are words of servers."""


class GrpcTransport:
    """A `Transport` over one channel, which many threads may use at once."""

    # protobuf copies a body with the interpreter locked: 19 MB in one piece stalled the hub for 26-39 ms.
    piece: int | None = 4 << 20

    def __init__(self, server: HostPort, io: IoBackend) -> None:
        self._server, self._io = server, io
        self._grpc = _client()
        self._made: Any = None

    def metadata(self, model: str, version: str) -> Mapping[str, Any]:
        """See `Transport`."""
        found: Any = self._control("get_model_metadata", model, version, as_json=True)
        for node in (*found.get("inputs", ()), *found.get("outputs", ())):
            node["shape"] = [int(d) for d in node.get("shape", ())]  # protobuf writes 64-bit integers as strings
        return found  # type: ignore[no-any-return]

    def config(self, model: str, version: str) -> Mapping[str, Any]:
        """See `Transport`."""
        found: Any = self._control("get_model_config", model, version, as_json=True)
        return found["config"]  # type: ignore[no-any-return]

    def models(self) -> list[str]:
        """See `Transport`."""
        found: Any = self._control("get_model_repository_index", as_json=True)
        return sorted({str(entry["name"]) for entry in found.get("models", ())})

    def ready(self, model: str, version: str) -> bool:
        """See `Transport`."""
        try:
            return bool(self._control("is_server_ready")) and bool(self._control("is_model_ready", model, version))
        except ServerError:
            return False

    def register(self, region: str, key: str, nbytes: int) -> None:
        """See `Transport`."""
        self._control("register_system_shared_memory", region, key, nbytes)

    def unregister(self, region: str) -> None:
        """See `Transport`."""
        self._control("unregister_system_shared_memory", region)

    def regions(self) -> list[str]:
        """See `Transport`."""
        found: Any = self._control("get_system_shared_memory_status", as_json=True)
        return list(found.get("regions", {}))

    def infer(self, query: Query, seconds: float) -> Answer:
        """See `Transport`."""
        return self._call(lambda: self._infer(query, seconds))

    def close(self) -> None:
        """See `Transport`."""
        made, self._made = self._made, None
        if made is not None:
            self._io.call(made.close)

    def _infer(self, query: Query, seconds: float) -> Answer:
        pixels = self._grpc.InferInput(query.input, list(query.shape), query.datatype)
        if isinstance(query.pixels, Shared):
            pixels.set_shared_memory(query.pixels.region, query.pixels.nbytes, query.pixels.offset)
        else:
            pixels.set_data_from_numpy(query.pixels.reshape(query.shape))
        vectors = self._grpc.InferRequestedOutput(query.output)
        if query.vectors is not None:
            vectors.set_shared_memory(query.vectors.region, query.vectors.nbytes, query.vectors.offset)
        result = self._client().infer(query.model, [pixels], query.version, [vectors], client_timeout=seconds)
        found = result.get_output(query.output)
        if found is None:
            raise ConnectionError(f"an answer without output {query.output!r}")
        data = b"" if query.vectors is not None else result.as_numpy(query.output).tobytes()
        return Answer(tuple(found.shape), str(found.datatype), data)

    def _control(self, name: str, *arguments: Any, **options: Any) -> Any:
        """A call that computes nothing."""
        return self._call(lambda: getattr(self._client(), name)(*arguments, client_timeout=CONTROL_SECONDS, **options))

    def _client(self) -> Any:
        if self._made is None:
            self._made = self._grpc.InferenceServerClient(str(self._server))
        return self._made

    def _call(self, work: Callable[[], T]) -> T:
        try:
            return self._io.call(work)
        except self._grpc.InferenceServerException as error:
            raise _translated(error) from error


def _translated(error: Any) -> ServerError | OSError:
    code, text = str(error.status() or "").removeprefix("StatusCode."), str(error.message())
    if code == "DEADLINE_EXCEEDED":
        return TimeoutError(text)
    if code in _STATUS:
        return ServerError(_STATUS[code], text)
    if _SERVERS_OWN.search(text):
        return ServerError(503, text)
    if _NEVER_THERE.search(text):
        return ConnectionRefusedError(text)
    return (ConnectionResetError if _CUT.search(text) else ConnectionError)(f"{code}: {text}")


def _client() -> Any:
    try:
        import tritonclient.grpc
    except ImportError as error:
        raise ConfigError("embedder triton+grpc needs Triton's client: pip install 'penstock[triton]'") from error
    return tritonclient.grpc
