"""What an error of pymilvus means: whom it concerns, and whether trying again can help."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any


class ErrorKind(Enum):
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


class CallError(Exception):
    """A call failed in a way that the caller must handle. Never TRANSIENT, LIMITED or NOT_LOADED."""

    def __init__(self, kind: ErrorKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class UnreachableError(Exception):
    """Nobody listens at the address. Found out by a plain connection: pymilvus waits ten seconds for what may come."""


# Codes of Milvus 2.3+ (merr) and of Milvus Lite. 6 is Lite's "illegal argument", and Milvus' cross-cluster routing,
# which a client of one cluster never sees. 1 is Milvus' "not ready", and Lite's and pymilvus' "anything": its text
# decides.
_CODES = {
    2: ErrorKind.TRANSIENT,  # service unavailable; pymilvus: cannot connect
    3: ErrorKind.TRANSIENT,  # memory limit
    4: ErrorKind.LIMITED,  # too many requests
    6: ErrorKind.ROW,
    7: ErrorKind.TRANSIENT,  # disk limit
    8: ErrorKind.LIMITED,  # rate limit
    9: ErrorKind.LIMITED,  # quota exceeded, writes denied for now
    100: ErrorKind.MISSING,
    800: ErrorKind.NO_DATABASE,
    101: ErrorKind.NOT_LOADED,
    1100: ErrorKind.ROW,  # invalid parameter: a VARCHAR that is too long, for example
    1400: ErrorKind.DENIED,
    1401: ErrorKind.DENIED,
}
_TEXTS = (
    ("larger than max", ErrorKind.TOO_LARGE),
    ("message too large", ErrorKind.TOO_LARGE),
    # Of a wrong row; but if all rows are told so, the collection has other dimensions than it had.
    ("expected dim", ErrorKind.UNKNOWN),
    ("not equal to passed num_rows", ErrorKind.UNKNOWN),
    ("rate limit", ErrorKind.LIMITED),
    ("no space left", ErrorKind.TRANSIENT),
    ("service not ready", ErrorKind.TRANSIENT),
    ("closed channel", ErrorKind.TRANSIENT),  # another thread of this sink is reconnecting
    ("auth check failure", ErrorKind.DENIED),
)
_NO_DATABASE = re.compile(r"^database.*(not found|does not exist)")
_GRPC = {
    "UNAVAILABLE": ErrorKind.TRANSIENT,
    "DEADLINE_EXCEEDED": ErrorKind.TRANSIENT,
    "RESOURCE_EXHAUSTED": ErrorKind.LIMITED,
    "ABORTED": ErrorKind.TRANSIENT,
    "CANCELLED": ErrorKind.TRANSIENT,
    "INTERNAL": ErrorKind.TRANSIENT,  # RST_STREAM of a proxy or a dying server
    "UNKNOWN": ErrorKind.TRANSIENT,
    "UNAUTHENTICATED": ErrorKind.DENIED,
    "PERMISSION_DENIED": ErrorKind.DENIED,
}


def caught() -> tuple[type[Exception], ...]:
    """What a call raises: pymilvus' own errors, bare gRPC errors that it lets through, and that nobody listens."""
    import grpc
    from pymilvus.exceptions import MilvusException

    return MilvusException, grpc.RpcError, grpc.FutureTimeoutError, UnreachableError


def classify(error: BaseException) -> ErrorKind:
    """What to do about an error of pymilvus or gRPC."""
    if isinstance(error, UnreachableError):
        return ErrorKind.TRANSIENT
    text = describe(error).lower()
    if _NO_DATABASE.search(text):
        return ErrorKind.NO_DATABASE
    for part, kind in _TEXTS:
        if part in text:
            return kind
    cause = error.__cause__
    if cause is not None and cause is not error and _grpc_status(cause) in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return ErrorKind.DENIED  # pymilvus turns a refused handshake into "fail connecting"
    status = _grpc_status(error)
    if status:
        return _GRPC.get(status, ErrorKind.UNKNOWN)
    if type(error).__name__ in {"DataNotMatchException", "ParamError"}:
        return ErrorKind.ROW  # pymilvus looked at the rows and did not send them
    if getattr(error, "retriable", False):
        return ErrorKind.TRANSIENT
    return _CODES.get(_code(error), ErrorKind.UNKNOWN)


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
