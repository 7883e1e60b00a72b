"""The embedder: a model on Triton servers. See this package's docstring for the life of one batch."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Final

import numpy as np

from ....errors import EmbedderError, EmbedError
from ..base import (
    NONE_REFUSED,
    Array,
    Embedder,
    Options,
    PixelPreferences,
    Pixels,
    Refusals,
    Runs,
    View,
    bisect,
    need_batch,
    nonfinite_rows,
)
from .address import Address, HostPort, Protocol, read_address
from .discovery import discover, model_spec_at, need_same
from .endpoint_pool import Endpoint, EndpointPool
from .errors import ErrorKind, RequestError, kind_of
from .exchange import Exchange, vector_shape
from .io_backend import GreenletIo, IoBackend, Signal, ThreadIo
from .model_spec import ModelSpec
from .over_grpc import GrpcTransport
from .over_http import HttpTransport
from .owner import Owner
from .regions import Regions
from .transport import Answer, Transport

_TRANSPORTS: Final[dict[Protocol, Callable[[HostPort, IoBackend], Transport]]] = {
    "http": HttpTransport,
    "grpc": GrpcTransport,
}


class TritonEmbedder(Embedder):
    """``triton+http://host:port[,host:port...]/model`` and ``triton+grpc://...``; see `Address` for the options."""

    runs: ClassVar[Runs] = "green"

    def __init__(self, address: Address) -> None:
        super().__init__(f"triton:{address.model}", address.spec)
        self._address = address
        self._model: ModelSpec | None = None
        self._dimension: int | None = None
        self._rows = 0
        self._black: Array = np.zeros(0)  # pictures to try the model on
        self._plain: _Client | None = None  # for threads without a hub
        self._green: _Client | None = None  # for greenlets of the hub that runs in ...
        self._hub_thread: int | None = None  # ... this thread

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            raise EmbedderError(f"{self.name} has no known dimension before it is opened")
        return self._dimension

    @property
    def concurrency(self) -> int:
        """Requests under way at once, at all servers together.

        Two for each instance of the model: one that it computes, and one that waits at the server, so that the instance
        has no pause while an answer travels and the next batch is fetched.
        """
        return self._capacity * len(self._address.servers)

    @property
    def fingerprint(self) -> str:
        """Of model, version, input and output as the servers describe them; not of where they run. Asks them."""
        return self._agreed().fingerprint

    @property
    def wants(self) -> PixelPreferences:
        """What the model fixes. Asks the servers.

        Raises:
            ConfigError: the model is not there or not one for pictures, or the servers differ.
            EmbedderError: no server answers.
        """
        return self._agreed().wants

    def memory(self, spec: Pixels, rows: int) -> int:
        """Bodies of all requests under way, as they are needed where a server cannot share memory."""
        return 2 * self.concurrency * rows * math.prod(spec.pixel_shape()) * spec.pixel_dtype().itemsize

    def check(self, spec: Pixels) -> None:
        """Hold the pixels against the model's input. Asks the servers."""
        self._agreed().check(self.name, spec)

    def open(self, spec: Pixels, rows: int) -> None:
        """Try the model on black pictures, which also tells a dimension that it does not."""
        self.check(spec)
        model = self._agreed()
        count = model.fixed or min(rows, 2, model.step or 2)
        self._black = np.zeros((count, *spec.pixel_shape()), spec.pixel_dtype())
        self.close()
        pool = self._pool(ThreadIo())
        try:
            self._dimension = self._tried(pool, model)
        except BaseException:
            pool.close()
            raise
        self._rows = rows
        self._plain = self._client(pool, ThreadIo())

    def embed(self, view: View, rows: int) -> Refusals:
        """See `Embedder`. In greenlets of the hub it was started in, or in any thread that has no hub."""
        in_hub = threading.get_ident() == self._hub_thread
        client = self._green if in_hub else self._plain
        if client is None:
            raise EmbedderError(f"{self.name}: embed() before open()")
        need_batch(self, view, rows, self._rows)
        refused = self._refused(client, view, rows)
        if _alike(refused, rows) and client.pool.probe_all():
            # The model was ill and not the pictures. Its server is out until it is well: elsewhere, or then.
            refused = self._refused(client, view, rows)
            if _alike(refused, rows) and client.pool.probe_all():
                raise EmbedderError(f"{self.name} refuses every picture, black ones, too: {refused[0]}")
        for row in nonfinite_rows(view.embeddings[:rows]):
            refused.setdefault(row, EmbedError(f"{self.name}: the model returned NaN or infinity for this picture"))
        return refused

    def start_in_hub(self) -> None:
        """Make connections that wait in greenlets. They belong to the calling thread until `stop_in_hub`."""
        if self._plain is None:
            raise EmbedderError(f"{self.name}: start_in_hub() before open()")
        # Threads for those given up on, too: a probe must not wait behind them.
        io = GreenletIo(threads=4 * self.concurrency + 4)
        self._green = self._client(self._pool(io), io)
        self._hub_thread = threading.get_ident()

    def stop_in_hub(self) -> None:
        """Give back the registered memory and close the connections."""
        client, self._green, self._hub_thread = self._green, None, None
        if client is not None:
            client.close()

    def close(self) -> None:
        client, self._plain = self._plain, None
        if client is not None:
            client.close()

    # -- parts --------------------------------------------------------------------------------------------------------

    def _refused(self, client: _Client, view: View, rows: int) -> dict[int, EmbedError]:
        """Embed the rows, and find those that the model refuses."""
        refused = dict(NONE_REFUSED)
        step = self._agreed().step or max(rows, 1)
        for start in range(0, rows, step):
            refused |= bisect(lambda a, b: self._rows_at(client, view, a, b), start, min(start + step, rows))
        return refused

    @property
    def _capacity(self) -> int:
        return self._address.concurrency or 2 * self._agreed().instances

    def _agreed(self) -> ModelSpec:
        if self._model is None:
            self._model = discover(self.name, self._address, _TRANSPORTS[self._address.protocol])
        return self._model

    def _pool(self, io: IoBackend) -> EndpointPool:
        owner, connect = Owner.current(), _TRANSPORTS[self._address.protocol]
        endpoints: list[Endpoint] = []
        pending: dict[str, Signal] = {}
        for server in self._address.servers:
            transport = connect(server, io)
            regions = Regions(str(server), transport, io, owner, pending)
            endpoints.append(Endpoint(server, transport, regions, self._capacity))
        return EndpointPool(self.name, endpoints, io, self._serves, self._try_black, self._address.patience)

    def _serves(self, endpoint: Endpoint) -> bool:
        """Whether a server that was away can be asked again: it may have come back with another model."""
        model = self._agreed()
        if not endpoint.transport.ready(model.name, model.version):
            return False
        address = replace(self._address, version=model.version or None)
        found = model_spec_at(self.name, endpoint.server, address, endpoint.transport)
        need_same(self.name, self._address.servers[0], model, endpoint.server, found)
        return True

    def _client(self, pool: EndpointPool, io: IoBackend) -> _Client:
        share = self._address.shm == "auto"
        exchange = Exchange(self.name, self._agreed(), self.dimension, io, self._address.timeout, share=share)
        return _Client(pool, exchange, io)

    def _try_black(self, endpoint: Endpoint) -> Answer:
        """A server's answer for black pictures.

        Raises:
            OSError, ServerError: it has none.
        """
        trial = Exchange(self.name, self._agreed(), 0, ThreadIo(), self._address.timeout, share=False)
        return trial.ask(endpoint, self._black)

    def _tried(self, pool: EndpointPool, model: ModelSpec) -> int:
        """The dimension, from an answer for black pictures."""
        probe = self._black
        try:
            answer = pool.run(self._try_black)
        except RequestError as error:
            raise EmbedderError(
                f"{self.name} failed on black pictures of {list(probe.shape)} {probe.dtype}, as a trial: {error}"
            ) from error
        shape = vector_shape(model, answer)
        known = model.dimension
        if len(shape) != 2 or shape[0] != len(probe) or not shape[1] or (known and shape[1] != known):
            raise EmbedderError(
                f"{self.name} must return [n, {known or 'D'}] vectors: for {len(probe)} pictures, output "
                f"{model.output!r} had shape {list(answer.shape)}"
            )
        return shape[1]

    def _rows_at(self, client: _Client, view: View, start: int, stop: int) -> None:
        """Embed some rows, wherever it works.

        Raises:
            EmbedError: the model refuses at least one of them.
            EmbedderError: it does not work at all.
        """
        try:
            client.pool.run(lambda endpoint: client.exchange.embed(endpoint, view, start, stop))
        except RequestError as error:
            if kind_of(error) is ErrorKind.MISFIT:
                raise EmbedderError(f"{self.name}: {error}") from error
            story = "its process died of these pictures" if kind_of(error) is ErrorKind.CRASHED else "it refused"
            raise EmbedError(f"{self.name}: {story}: {error}") from error


class _Client:
    """The servers, as seen from one way of waiting."""

    def __init__(self, pool: EndpointPool, exchange: Exchange, io: IoBackend) -> None:
        self.pool, self.exchange, self.io = pool, exchange, io

    def close(self) -> None:
        try:
            self.pool.close()
        finally:
            self.io.stop()


def _alike(refused: Refusals, rows: int) -> bool:
    """Whether all of several rows were refused, in the same words."""
    return len(refused) == rows > 1 and len({str(error) for error in refused.values()}) == 1


def make_triton(protocol: Protocol, rest: str, options: Options) -> TritonEmbedder:
    """What stands after ``triton+http:`` or ``triton+grpc:``, and the options.

    Raises:
        ConfigError: it is not an address; or the client for gRPC is not installed.
    """
    return TritonEmbedder(read_address(protocol, rest, options))
