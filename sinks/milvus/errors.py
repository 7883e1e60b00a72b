"""What an error of pymilvus means: whom it concerns, and whether trying again can help."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any


class Kind(Enum):
    """What to do about a failed call."""

    TRANSIENT = auto()
    """Try again later: server gone, restarting, no disk."""
    LIMITED = auto()
    """Try again later, and ask for less at once: rate limit, quota, too many requests."""
    TOO_LARGE = auto()
    """Send less at once."""
    NOT_LOADED = auto()
    """Load the collection, then try again."""
    MISSING = auto()
    """The collection is not there."""
    NO_DATABASE = auto()
    """The database that the URI names is not there."""
    DENIED = auto()
    """Wrong credentials or rights."""
    ROW = auto()
    """A row is wrong: find it and leave it out."""
    UNKNOWN = auto()
    """A row or the server: leave out single rows, but not all of them."""


class Trouble(Exception):  # noqa: N818  (internal; never reaches a user)
    """A call failed in a way that the caller must handle. Never TRANSIENT, LIMITED or NOT_LOADED."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class UnreachableError(Exception):
    """Nobody listens at the address. Found out by a plain connection: pymilvus waits ten seconds for what may come."""


# Codes of Milvus 2.3+ (merr) and of Milvus Lite. 6 is Lite's "illegal argument", and Milvus' cross-cluster routing,
# which a client of one cluster never sees. 1 is Milvus' "not ready", and Lite's and pymilvus' "anything": its text
# decides.
_CODES = {
    2: Kind.TRANSIENT,  # service unavailable; pymilvus: cannot connect
    3: Kind.TRANSIENT,  # memory limit
    4: Kind.LIMITED,  # too many requests
    6: Kind.ROW,
    7: Kind.TRANSIENT,  # disk limit
    8: Kind.LIMITED,  # rate limit
    9: Kind.LIMITED,  # quota exceeded, writes denied for now
    100: Kind.MISSING,
    800: Kind.NO_DATABASE,
    101: Kind.NOT_LOADED,
    1100: Kind.ROW,  # invalid parameter: a VARCHAR that is too long, for example
    1400: Kind.DENIED,
    1401: Kind.DENIED,
}
_TEXTS = (
    ("larger than max", Kind.TOO_LARGE),
    ("message too large", Kind.TOO_LARGE),
    # Of a wrong row; but if all rows are told so, the collection has other dimensions than it had.
    ("expected dim", Kind.UNKNOWN),
    ("not equal to passed num_rows", Kind.UNKNOWN),
    ("rate limit", Kind.LIMITED),
    ("no space left", Kind.TRANSIENT),
    ("service not ready", Kind.TRANSIENT),
    ("closed channel", Kind.TRANSIENT),  # another thread of this sink is reconnecting
    ("auth check failure", Kind.DENIED),
)
_NO_DATABASE = re.compile(r"^database.*(not found|does not exist)")
_GRPC = {
    "UNAVAILABLE": Kind.TRANSIENT,
    "DEADLINE_EXCEEDED": Kind.TRANSIENT,
    "RESOURCE_EXHAUSTED": Kind.LIMITED,
    "ABORTED": Kind.TRANSIENT,
    "CANCELLED": Kind.TRANSIENT,
    "INTERNAL": Kind.TRANSIENT,  # RST_STREAM of a proxy or a dying server
    "UNKNOWN": Kind.TRANSIENT,
    "UNAUTHENTICATED": Kind.DENIED,
    "PERMISSION_DENIED": Kind.DENIED,
}


def caught() -> tuple[type[Exception], ...]:
    """What a call raises: pymilvus' own errors, bare gRPC errors that it lets through, and that nobody listens."""
    import grpc
    from pymilvus.exceptions import MilvusException

    return MilvusException, grpc.RpcError, grpc.FutureTimeoutError, UnreachableError


def classify(error: BaseException) -> Kind:
    """What to do about an error of pymilvus or gRPC."""
    if isinstance(error, UnreachableError):
        return Kind.TRANSIENT
    text = describe(error).lower()
    if _NO_DATABASE.search(text):
        return Kind.NO_DATABASE
    for part, kind in _TEXTS:
        if part in text:
            return kind
    cause = error.__cause__
    if cause is not None and cause is not error and _grpc_status(cause) in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return Kind.DENIED  # pymilvus turns a refused handshake into "fail connecting"
    status = _grpc_status(error)
    if status:
        return _GRPC.get(status, Kind.UNKNOWN)
    if type(error).__name__ in {"DataNotMatchException", "ParamError"}:
        return Kind.ROW  # pymilvus looked at the rows and did not send them
    if getattr(error, "retriable", False):
        return Kind.TRANSIENT
    return _CODES.get(_code(error), Kind.UNKNOWN)


def is_unreachable(error: BaseException) -> bool:
    """Whether it says that the connection is broken, or that there is none."""
    return isinstance(error, UnreachableError) or _grpc_status(error) == "UNAVAILABLE"


def is_late(error: BaseException) -> bool:
    """Whether it only says that there was no answer in the time that the call had."""
    return _grpc_status(error) == "DEADLINE_EXCEEDED"


def describe(error: BaseException) -> str:
    """The error's own words, in one line, without pymilvus' dressing."""
    details: Any = getattr(error, "details", None)
    text = getattr(error, "message", "") or (details() if callable(details) else "") or str(error)
    return " ".join(str(text).split())[:500]


def _grpc_status(error: BaseException) -> str:
    """Name of the gRPC status, if that is what the error is about; pymilvus also puts it into its own errors' code."""
    code: Any = getattr(error, "code", None)
    value = code() if callable(code) else code
    return str(getattr(value, "name", "")) if type(value).__name__ == "StatusCode" else ""


def _code(error: BaseException) -> int:
    code: Any = getattr(error, "code", None)
    return int(code) if isinstance(code, int) else -1


# pymilvus logs a traceback at ERROR for every failed call, also for those that we retry or answer.
_LOGGERS = ("pymilvus.decorators", "pymilvus.client.connection_manager", "pymilvus.client.grpc_handler")
_calling = threading.local()


def _is_not_ours(record: logging.LogRecord) -> bool:  # noqa: ARG001
    return not getattr(_calling, "quiet", False)


@contextmanager
def quiet() -> Generator[None]:
    """Within it, on this thread only, pymilvus logs nothing: the host's own use of pymilvus is left as it is."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_not_ours)  # adding it again does nothing
    before = getattr(_calling, "quiet", False)
    _calling.quiet = True
    try:
        yield
    finally:
        _calling.quiet = before
