"""What an embedder needs of a connection to one server, whatever the protocol: HTTP and gRPC each fill it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..base import Array

CONTROL_SECONDS: Final = 5.0
"""What a call that computes nothing (metadata, health, registrations) may take."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Bytes in a region that the server has mapped.

    Attributes:
        region: the name it was registered under.
        offset: where they begin, in bytes from the region's start.
        nbytes: how many there are; for an input exactly its size, for an output room for it.
    """

    region: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Query:
    """One inference request.

    Attributes:
        model, version: whom to ask; an empty version leaves the choice to the server.
        input, datatype, shape: name, KServe element type and shape of the pictures.
        pixels: C-contiguous pictures to send along, or where the server finds them. Not kept after the call.
        output: name of the vectors.
        vectors: where the server shall put them; None: into its answer.
    """

    model: str
    version: str
    input: str
    datatype: str
    shape: tuple[int, ...]
    pixels: Array | Shared
    output: str
    vectors: Shared | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says about the output.

    Attributes:
        shape: of the vectors.
        datatype: KServe element type.
        data: their bytes; empty when they went to shared memory.
    """

    shape: tuple[int, ...]
    datatype: str
    data: bytes | memoryview


class ServerError(Exception):  # an answer; what it means is for `errors` to say
    """The server answered with an error: it has finished with the request.

    Attributes:
        status: as an HTTP status; gRPC codes are translated.
        text: the server's own words.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text

    def __str__(self) -> str:
        return f"[{self.status}] {self.text}"


class Transport(Protocol):
    """A connection to one server. Every method may raise `ServerError`, or an OSError if no whole answer came.

    Attributes:
        piece: bytes of pixels that one body should hold, at most; None: any number.
    """

    piece: int | None

    def metadata(self, model: str, version: str) -> Mapping[str, Any]:
        """The model's metadata, as KServe's JSON."""
        ...

    def config(self, model: str, version: str) -> Mapping[str, Any]:
        """The model's configuration, as Triton's JSON."""
        ...

    def models(self) -> list[str]:
        """Names of the models that the server has."""
        ...

    def ready(self, model: str, version: str) -> bool:
        """Whether server and model can be asked."""
        ...

    def register(self, region: str, key: str, nbytes: int) -> None:
        """Have the server map a whole segment."""
        ...

    def unregister(self, region: str) -> None:
        """Have it let go of one; of an unknown one nothing happens."""
        ...

    def regions(self) -> list[str]:
        """Names of all its regions, whoever's they are."""
        ...

    def infer(self, query: Query, seconds: float) -> Answer:
        """Ask the model, for at most so long."""
        ...

    def close(self) -> None:
        """Close what is idle. What is under way ends by itself."""
        ...
