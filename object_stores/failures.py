"""What the client library raises, as errors of penstock."""

from __future__ import annotations

import errno
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from ..errors import (
    ObjectChangedError,
    ObjectDeniedError,
    ObjectExistsError,
    ObjectNameError,
    ObjectNotFoundError,
    ObjectStoreError,
    ObjectStoreUnavailableError,
    PenstockError,
    ReadError,
)
from ..messages import redact

_LONGEST: Final = 400
"""Characters of the library's message that are kept."""

_STATUS: Final = re.compile(r"status code: (\d{3})")
_ANSWERED: Final = re.compile(r"status code: (\d{3}.*)$")
_BODY: Final = re.compile(r"<(?:\?xml|!DOCTYPE|Error|html).*", re.IGNORECASE)
_SAYS: Final = re.compile(r"<(?:Code|Message)>(.*?)</(?:Code|Message)>")

_PASSING_STATUS: Final = frozenset({408, 425, 429})
"""Of the 4xx, those that ask to come again."""

_KINDS: Final[dict[str, type[ObjectStoreError]]] = {
    "PreconditionError": ObjectChangedError,
    "NotModifiedError": ObjectChangedError,
    "AlreadyExistsError": ObjectExistsError,
    "PermissionDeniedError": ObjectDeniedError,
    "UnauthenticatedError": ObjectDeniedError,
    "InvalidPathError": ObjectNameError,
}
"""Class of obstore -> ours. By name: it is not imported for this."""

_ELSEWHERE: Final = "redirect without LOCATION"
_LASTING: Final = ("builder error", _ELSEWHERE)
"""What else will be the same the next time."""

_STATUSES: Final[dict[int, type[ObjectStoreError]]] = {
    401: ObjectDeniedError,
    403: ObjectDeniedError,
    404: ObjectNotFoundError,
    412: ObjectChangedError,
}

_SAID: Final[dict[type[ObjectStoreError], str]] = {
    ObjectNotFoundError: "is not there",
    ObjectChangedError: "is not what it was",
    ObjectExistsError: "is there already",
    ObjectDeniedError: "access denied",
    ObjectNameError: "is no key that this client can name",
    ObjectStoreUnavailableError: "no answer that is of use, after all attempts",
    ObjectStoreError: "refused",
}


@contextmanager
def store_errors(where: str) -> Generator[None]:
    """Turn errors of obstore into ours.

    Args:
        where: the URL it is about, for the message.

    Raises:
        ObjectStoreError: one of its kinds.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001  (raised again)
        raise store_error(where, error) from None  # its causes hold whole responses


def store_error(where: str, error: Exception) -> Exception:
    """An error of obstore as ours; any other as it is."""
    if isinstance(error, PenstockError) or (kind := kind_of(error)) is None:
        return error
    return kind(f"{redact(where)!r} {_SAID[kind]}: {short(error)}")


def kind_of(error: Exception) -> type[ObjectStoreError] | None:
    """What an error of the client library is to us; None for one that is not of it."""
    if isinstance(error, FileNotFoundError):
        return ObjectNotFoundError
    of_library = type(error).__module__.startswith("obstore")
    if isinstance(error, ValueError) and not of_library:
        return ObjectNameError
    if not of_library:
        return None
    if type(error).__name__ == "GenericError":
        return _of_generic(str(error))
    return _KINDS.get(type(error).__name__, ObjectStoreError)


def kind_of_status(status: int) -> type[ObjectStoreError]:
    """What the status of an answer that is no success is to us."""
    is_busy = status >= 500 or status in _PASSING_STATUS
    return ObjectStoreUnavailableError if is_busy else _STATUSES.get(status, ObjectStoreError)


def _of_generic(said: str) -> type[ObjectStoreError]:
    """What the library has no class for: by the status of the answer, if there was one."""
    found = _STATUS.search(said)
    if found and int(found[1]) >= 400:
        return kind_of_status(int(found[1]))
    return ObjectStoreError if any(sign in said for sign in _LASTING) else ObjectStoreUnavailableError


def short(error: BaseException) -> str:
    """The library's message in one line, without secrets, and not endless: it quotes pages of XML, and itself."""
    said = _BODY.sub(_code_of, " ".join(str(error).split()).partition(" Debug source:")[0])
    if answered := _ANSWERED.search(said):  # before it, which request it was, in as many words
        said = f"HTTP {answered[1]}"
    said = redact(said) or type(error).__name__
    if _ELSEWHERE in said:
        said = "the bucket is in another region: set AWS_REGION to it"
    return said if len(said) <= _LONGEST else said[:_LONGEST] + "..."


def _code_of(body: re.Match[str]) -> str:
    """Of a page of XML what it says."""
    return ": ".join(_SAYS.findall(body[0])) or "(a page)"


def as_read_error(error: ObjectStoreError) -> ReadError:
    """The same as a failure of one item; its `errno` says whether it may pass by itself."""
    found = ReadError(str(error))
    if isinstance(error, ObjectStoreUnavailableError):
        found.errno = errno.ETIMEDOUT
    elif isinstance(error, ObjectNotFoundError):
        found.errno = errno.ENOENT
    elif isinstance(error, ObjectDeniedError):
        found.errno = errno.EACCES
    return found
