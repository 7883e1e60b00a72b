"""One request to one server: through shared memory where the server reaches it, else in the body."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import numpy as np

from ....errors import EmbedderError
from ....shm import Place
from ..base import Array, View
from .endpoint_pool import Endpoint
from .errors import ErrorKind, kind_of
from .io_backend import IoBackend
from .model_spec import VECTOR_TYPES, ModelSpec
from .transport import Answer, Query, ServerError, Shared

_logger = logging.getLogger(__name__)

_LATE_FACTOR: Final = 10
"""A request whose caller has given up is waited for so many times its timeout before its connection is closed."""


class Exchange:
    """How rows of a batch become vectors at a server.

    Args:
        name: of the embedder, for messages.
        dimension: floats of a vector.
        timeout: seconds of a request.
        share: whether to try shared memory.
    """

    def __init__(
        self, name: str, model: ModelSpec, dimension: int, io: IoBackend, timeout: float, *, share: bool
    ) -> None:
        self._name, self._model, self._dimension = name, model, dimension
        self._io, self._timeout, self._share = io, timeout, share and io.beside

    def embed(self, endpoint: Endpoint, view: View, start: int, stop: int) -> None:
        """Write the vectors of rows ``[start, stop)`` into the view's.

        Raises:
            OSError, ServerError: see `errors`.
            EmbedderError: the vectors have another shape than the model promised.
        """
        fits = self._model.fixed in (None, stop - start)  # else it is padded, which a slot has no room for
        place = view.place if self._share and fits else None
        region = endpoint.regions.name(place) if place else None
        if place is None or region is None:
            if endpoint.regions.refused:
                self._warn(endpoint)
            self._in_body(endpoint, view, start, stop)
            return
        try:
            self._in_place(endpoint, view, place, region, start, stop)
        except ServerError as error:
            if kind_of(error) is ErrorKind.REGION_LOST:
                endpoint.regions.lost(place.segment)
            raise
        endpoint.regions.worked()

    def _in_place(self, endpoint: Endpoint, view: View, place: Place, region: str, start: int, stop: int) -> None:
        """The server reads the pixels in the slot, and writes float32 vectors beside them.

        Only where it can be seen when it no longer can: else the vectors come in the answer. That a request which was
        given up *reads* a slot that holds other pixels by now does no harm.
        """
        model, rows = self._model, stop - start
        row, width = view.pixels[0].nbytes, view.embeddings[0].nbytes
        direct = model.output_type == "FP32" and endpoint.regions.watched(place.segment)
        query = self._query(
            (rows, *view.pixels.shape[1:]),
            Shared(region, place.offsets["pixels"] + start * row, rows * row),
            Shared(region, place.offsets["embeddings"] + start * width, rows * width) if direct else None,
        )
        release = view.pin() if direct else lambda: None
        answer = self._outlasting(endpoint, place.segment, release, query)
        self._check(answer, rows)
        if not direct:
            view.embeddings[start:stop] = self._vectors(answer, rows)

    def _outlasting(self, endpoint: Endpoint, segment: str, release: Callable[[], None], query: Query) -> Answer:
        """Ask about memory that the server may use for longer than the caller waits; it is held until `release`."""
        ended = given_up = False

        def ask() -> Answer:
            nonlocal ended
            try:
                answer = endpoint.transport.infer(query, _LATE_FACTOR * self._timeout)
            except (ServerError, ConnectionRefusedError):
                release()  # an error is an answer too, and who refuses has seen nothing
                raise
            except BaseException as error:
                # Cut off without an answer: the server may be dead or may still compute.
                endpoint.regions.keep(segment, release)
                if given_up and isinstance(error, Exception):
                    endpoint.eject(error)  # nobody else will
                raise
            finally:
                ended = True
                if given_up:
                    endpoint.late -= 1
            release()
            return answer

        try:
            return self._io.at_most(self._timeout, ask)
        finally:  # also where the caller is killed
            if not ended:
                given_up = True
                endpoint.late += 1

    def _in_body(self, endpoint: Endpoint, view: View, start: int, stop: int) -> None:
        """Pixels and vectors travel over the connection."""
        fixed, piece = self._model.fixed, endpoint.transport.piece
        step = fixed or (max(1, piece // view.pixels[0].nbytes) if piece else stop - start)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            pixels = padded(view.pixels[first:last], fixed)
            answer = self.ask(endpoint, pixels)
            view.embeddings[first:last] = self._vectors(answer, len(pixels))[: last - first]

    def ask(self, endpoint: Endpoint, pixels: Array) -> Answer:
        """Send pictures ``[n, ...]`` along; the vectors come back in the answer."""
        query = self._query(pixels.shape, np.ascontiguousarray(pixels))
        return endpoint.transport.infer(query, self._timeout)

    def _query(self, shape: tuple[int, ...], pixels: Array | Shared, vectors: Shared | None = None) -> Query:
        model = self._model
        return Query(
            model=model.name,
            version=model.version,
            input=model.input,
            datatype=model.datatype,
            shape=model.shape(shape[0], shape[1:]),
            pixels=pixels,
            output=model.output,
            vectors=vectors,
        )

    def _vectors(self, answer: Answer, rows: int) -> Array:
        self._check(answer, rows)
        vectors: Array = np.frombuffer(answer.data, VECTOR_TYPES[answer.datatype])
        if vectors.size != rows * self._dimension:
            raise EmbedderError(
                f"{self._name}: the server says {list(answer.shape)} {answer.datatype} and sent {vectors.size} numbers"
            )
        return vectors.reshape(rows, self._dimension)

    def _check(self, answer: Answer, rows: int) -> None:
        found = vector_shape(self._model, answer)
        if found != (rows, self._dimension) or answer.datatype != self._model.output_type:
            raise EmbedderError(
                f"{self._name}: for {rows} pictures, output {self._model.output!r} should be "
                f"{list(self._model.shape(rows, (self._dimension,)))} {self._model.output_type}, "
                f"and the server answered {list(answer.shape)} {answer.datatype}"
            )

    def _warn(self, endpoint: Endpoint) -> None:
        if endpoint.warned:
            return
        endpoint.warned = True
        smaller = "; a model that takes uint8 would need a quarter of that" if self._model.datatype == "FP32" else ""
        _logger.warning(
            "%s: %s does not read our shared memory (%s), so pixels travel in every request%s. On the same host, start "
            "it with --allow-client-shm=true (current releases refuse by default), in a container with --ipc=host, and "
            "as the user that runs penstock, or as root: others cannot open the memory. shm=off is for servers "
            "elsewhere, and silences this.",
            self._name,
            endpoint.server,
            endpoint.regions.refused,
            smaller,
        )


def padded(pixels: Array, rows: int | None) -> Array:
    """Exactly so many rows, for a model that takes no other number; the last one again where some are missing."""
    if rows is None or len(pixels) == rows:
        return pixels
    return np.concatenate([pixels, np.repeat(pixels[-1:], rows - len(pixels), axis=0)])


def vector_shape(model: ModelSpec, answer: Answer) -> tuple[int, ...]:
    """An answer's shape as ``[n, D]``, where it is that but for ones behind."""
    shape = answer.shape if model.batched else (1, *answer.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
