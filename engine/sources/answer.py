"""What a web server answered, as penstock's: a body that comes piece by piece, and failures that say whether to come
again."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import time
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Final

from ...errors import DownloadError, ReadError
from ...messages import redact

_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which it is worth coming again."""

_REFUSALS: Final = frozenset({403, 429})
"""Answers by which a host says that it does not want to be asked, rather than that something is not there."""

_ERRNO: Final = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT}


class Answer:
    """The answer to a GET, whose body is yet to be read.

    Attributes:
        url: where it came from in the end.
        status, reason: of its first line.
        headers: of it.
        length: bytes of its body, as it says; None where it does not.
        is_delimited: whether its end can be told from a connection that was cut.
    """

    def __init__(self, url: str, response: http.client.HTTPResponse) -> None:
        self.url = url
        self.status = response.status
        self.reason = response.reason
        self.headers: Message = response.headers
        self.length = None if response.chunked else response.length
        self.is_delimited = self.length is not None or bool(response.chunked)
        self._response = response
        self._ended = False

    def read1(self, size: int) -> bytes:
        """What has come of the body, at most so many bytes; nothing at its end.

        Raises:
            ReadError: it does not come, or ended too early; its `errno` says that it may come another time.
        """
        try:
            data = self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise read_error(self.url, error) from None
        if not data and self._response.length:  # http.client ends quietly where a connection is cut
            raise refused(self.url, "the connection ended within the body", errno.ECONNRESET)
        self._ended = not data
        return data

    def close(self) -> bool:
        """Done with it; says whether its connection can be used again."""
        response = self._response
        reusable = self._ended and not response.will_close
        response.close()
        return reusable

    def check(self, *expected: int) -> None:
        """Make sure that it is what was asked for.

        Args:
            expected: its status.

        Raises:
            DownloadError: it has another status, or its body is compressed.
        """
        if self.status not in expected:
            raise status_error(self.url, self.status, self.reason, self.headers.get("Retry-After"))
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise refused(self.url, "its body is compressed, though that was not asked for")


def status_error(url: str, status: int, reason: str, retry_after: str | None = None) -> DownloadError:
    """What is said of an answer that is no success.

    Args:
        url: that was asked for.
        status, reason: of the answer.
        retry_after: its header of that name.
    """
    error = refused(url, f"HTTP {status} {reason or ''}".rstrip())
    error.errno = errno.ETIMEDOUT if status in _PASSING else _ERRNO.get(status)
    error.status = status
    error.is_refusal = status in _REFUSALS
    error.retry_after = seconds_of(retry_after)
    return error


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds to wait by a ``Retry-After``: a number, or a date; None where it is neither."""
    said = (retry_after or "").strip()
    if said.isascii() and said.isdecimal():
        return float(said[:9])
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def refused(url: str, why: str, number: int | None = None) -> DownloadError:
    """A failure with the URL, without its secrets; with an `errno` it may pass."""
    error = DownloadError(f"{redact(url)!r}: {why}")
    error.errno = number
    return error


def read_error(url: str, error: Exception) -> ReadError:
    """What a connection raises, as a failure of its item."""
    if isinstance(error, ReadError):
        return error
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    lasting = isinstance(error, ssl.SSLCertVerificationError) or (
        isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
    )
    return refused(url, redact(said), None if lasting else errno.ETIMEDOUT)
