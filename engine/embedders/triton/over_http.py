"""KServe v2 over HTTP with Triton's binary and shared-memory extensions: requests written by hand on ``http.client``.

Why not ``tritonclient.http``: it copies a body several times, in the hub's thread. Measured in one run against one
server, 32 x 3 x 224 x 224 float32 in the body, 4 under way: 13.6-19.5 requests/s with 18-19 ms of CPU each, the hub
stalled for up to 165-275 ms; this way 17.1-27.6 requests/s, 3.6-4.5 ms, 9-10 ms (in the embedder as it is: 33-49
requests/s, 4-6 ms). With shared memory they are equal. And the same lines serve threads without a hub: only how a
socket waits differs (`IoBackend.connect`).
"""

from __future__ import annotations

import io
import json
import select
import socket
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final, cast
from urllib.parse import quote

import numpy as np

from .address import HostPort
from .io_backend import IoBackend
from .transport import CONTROL_SECONDS, Answer, Query, ServerError, Shared

_SPLIT: Final = "Inference-Header-Content-Length"
"""Where the JSON ends and the tensors' bytes begin, in a request and in an answer."""


class _InTime(io.RawIOBase):
    """What comes over a socket until a deadline: the socket's own timeout begins anew with every byte.

    ``http.client`` takes it for a socket, of which it wants ``makefile`` only.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)

    def makefile(self, mode: str) -> io.BufferedReader:
        """A file to read from."""
        del mode
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is for nothing else."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """See `io.RawIOBase`. Raises TimeoutError at the deadline."""
        _fail_at(self._sock, self._deadline)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class _Connection(HTTPConnection):
    """A connection whose socket waits the way it is told to.

    Attributes:
        deadline: when the request under way fails, by `time.monotonic`.
    """

    def __init__(self, server: HostPort, io: IoBackend) -> None:
        super().__init__(server.host, server.port)
        self._io = io
        self.deadline = 0.0

    def response_class(self, sock: socket.socket, **options: Any) -> HTTPResponse:  # type: ignore[override]
        """What reads an answer."""
        return HTTPResponse(cast("socket.socket", _InTime(sock, self.deadline)), **options)

    def connect(self) -> None:
        self.sock = self._io.connect((self.host, self.port), CONTROL_SECONDS)
        # Head and JSON go out in two writes: with Nagle's algorithm the second would wait 40 ms for an acknowledgement.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def usable(self) -> bool:
        """False when the server has closed it meanwhile: asking over it would look like a server that died."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def wait(self) -> None:
        """Let the next operation on the socket fail at the deadline."""
        _fail_at(self.sock, self.deadline)


def _fail_at(sock: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    sock.settimeout(left)


class HttpTransport:
    """A `Transport`. As many connections as there are requests under way; idle ones are kept."""

    piece: int | None = None  # sent from where it lies, as the socket takes it

    def __init__(self, server: HostPort, io: IoBackend) -> None:
        self._server, self._io = server, io
        self._idle: list[_Connection] = []
        self._closed = False

    def metadata(self, model: str, version: str) -> Mapping[str, Any]:
        """See `Transport`."""
        return cast("Mapping[str, Any]", self._json("GET", _model(model, version)))

    def config(self, model: str, version: str) -> Mapping[str, Any]:
        """See `Transport`."""
        return cast("Mapping[str, Any]", self._json("GET", _model(model, version) + "/config"))

    def models(self) -> list[str]:
        """See `Transport`."""
        found: Any = self._json("POST", "/v2/repository/index", {})
        return sorted({str(entry["name"]) for entry in found})

    def ready(self, model: str, version: str) -> bool:
        """See `Transport`."""
        try:
            self._json("GET", "/v2/health/ready")
            self._json("GET", _model(model, version) + "/ready")
        except ServerError:
            return False
        return True

    def register(self, region: str, key: str, nbytes: int) -> None:
        """See `Transport`."""
        self._json("POST", _region(region) + "/register", {"key": key, "offset": 0, "byte_size": nbytes})

    def unregister(self, region: str) -> None:
        """See `Transport`."""
        self._json("POST", _region(region) + "/unregister", {})

    def regions(self) -> list[str]:
        """See `Transport`."""
        found: Any = self._json("GET", "/v2/systemsharedmemory/status")
        return [str(entry["name"]) for entry in found]

    def infer(self, query: Query, seconds: float) -> Answer:
        """See `Transport`."""
        body = None if isinstance(query.pixels, Shared) else _bytes_of(query.pixels)
        path = _model(query.model, query.version) + "/infer"
        content, split = self._ask("POST", path, time.monotonic() + seconds, _question(query), body)
        return _answer(query, _parsed(content[:split]), memoryview(content)[split:])

    def close(self) -> None:
        """See `Transport`. A request that is under way closes its connection when it ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _json(self, method: str, path: str, value: Any = None) -> Any:
        """Ask for, and about, JSON."""
        content, split = self._ask(method, path, time.monotonic() + CONTROL_SECONDS, value)
        return _parsed(content[:split]) if split else None

    def _ask(
        self, method: str, path: str, deadline: float, value: Any = None, body: memoryview | None = None
    ) -> tuple[bytes, int]:
        """Send a request; returns the answer's content and how much of it is JSON."""
        connection = self._connection()
        try:
            if connection.sock is None:
                connection.connect()
            connection.deadline = deadline
            connection.wait()
            _send(connection, method, path, value, body)
            response = connection.getresponse()
            content = response.read()
        except BaseException as error:
            connection.close()
            if isinstance(error, HTTPException) and not isinstance(error, OSError):
                raise ConnectionError(f"{self._server} answered no HTTP: {error!r}") from error
            raise
        self._keep(connection, response)
        if response.status != 200:
            raise ServerError(response.status, _complaint(content) or response.reason)
        return content, int(response.getheader(_SPLIT) or len(content))

    def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()
        return _Connection(self._server, self._io)

    def _keep(self, connection: _Connection, response: HTTPResponse) -> None:
        if response.will_close or self._closed:
            connection.close()
        else:
            self._idle.append(connection)


def _send(connection: _Connection, method: str, path: str, value: Any, body: memoryview | None) -> None:
    head = b"" if value is None else json.dumps(value, separators=(",", ":")).encode()
    connection.putrequest(method, path, skip_accept_encoding=True)
    if value is not None:
        connection.putheader("Content-Length", str(len(head) + (len(body) if body is not None else 0)))
    if body is not None:
        connection.putheader(_SPLIT, str(len(head)))
    connection.endheaders(head)
    if body is not None:
        try:
            connection.sock.sendall(body)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a body (too large) may answer without reading it. If there is no answer,
            # reading will say so.
            return


def _question(query: Query) -> dict[str, Any]:
    """The JSON of an inference request."""
    size = {"binary_data_size": query.pixels.nbytes} if not isinstance(query.pixels, Shared) else _where(query.pixels)
    place = {"binary_data": True} if query.vectors is None else _where(query.vectors)
    return {
        "inputs": [{"name": query.input, "shape": query.shape, "datatype": query.datatype, "parameters": size}],
        "outputs": [{"name": query.output, "parameters": place}],
    }


def _where(shared: Shared) -> dict[str, Any]:
    return {
        "shared_memory_region": shared.region,
        "shared_memory_byte_size": shared.nbytes,
        "shared_memory_offset": shared.offset,
    }


def _answer(query: Query, value: Any, data: memoryview) -> Answer:
    try:
        found = next(output for output in value["outputs"] if output["name"] == query.output)
        return Answer(tuple(int(d) for d in found["shape"]), str(found["datatype"]), data)
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise ConnectionError(f"an answer without output {query.output!r}: {str(value)[:200]}") from error


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ConnectionError(f"an answer that is no JSON: {content[:80]!r}") from error


def _complaint(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")


def _bytes_of(pixels: np.ndarray[Any, np.dtype[Any]]) -> memoryview:
    return memoryview(cast("Any", pixels)).cast("B")


def _model(model: str, version: str) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _region(region: str) -> str:
    return f"/v2/systemsharedmemory/region/{quote(region, safe='')}"
