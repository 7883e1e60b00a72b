"""What yt-dlp raises, as failures of penstock: what its errors wrap says whether to come again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, Final

from ...errors import DownloadError, PenstockError
from ...messages import redact
from ..sources.answer import read_error, refused, status_error
from ..sources.safe_http import NOT_PUBLIC

_MOST: Final = 32
"""Errors in a chain to look at."""

_BOT: Final = ("not a bot", "too many requests", "rate-limit", "rate limit", "captcha")
"""What sites say to machines. (To sign in for one's age is about one video.)"""

_PASSING: Final = ("TransportError", "IncompleteRead", "ProxyError", "ContentTooShortError", "SSLError")
"""Classes of yt-dlp's that are about a connection."""

_GAVE_UP: Final = "giving up after"
"""What it says, and nothing else, of a transfer that failed as often as it may."""

_LONGEST: Final = 400
"""Characters of its words that are kept."""


def failure_of(url: str, error: Exception) -> Exception:
    """What is raised in place of an error that left yt-dlp.

    Returns:
        Our own error if it is the cause; an OSError where the disk is full; else a DownloadError.
    """
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, PenstockError):
            return each
        if isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT):
            return OSError(each.errno, each.strerror)
    for each in chain:
        status = getattr(each, "status", None)
        if isinstance(status, int):
            return _of_answer(url, each, status)
    said = redact(_words(error))
    if any(sign in said.lower() for sign in _BOT):
        bot = refused(url, said, errno.EAGAIN)  # says nothing about the video
        bot.is_refusal = True
        return bot
    if NOT_PUBLIC in said:  # it tries again what the guard refuses, and keeps the words only
        return refused(url, said)
    if _GAVE_UP in said.lower():
        return refused(url, said, errno.ECONNRESET)
    for each in chain:
        if type(each).__name__ in _PASSING:
            return refused(url, said, errno.ECONNRESET)
        if isinstance(each, ConnectionError | TimeoutError):
            return read_error(url, each)
    return refused(url, said)


def _of_answer(url: str, error: Any, status: int) -> DownloadError:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return status_error(url, status, str(getattr(error, "reason", "") or ""), headers.get("Retry-After"))


def _words(error: Exception) -> str:
    said = (
        " ".join(str(error).split()).removeprefix("ERROR: ").removeprefix("[download] Got error: ")
        or type(error).__name__
    )
    return said if len(said) <= _LONGEST else said[:_LONGEST] + "..."


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that led to it: what it names as its cause, and what was being handled."""
    found: list[Any] = [error]
    for number in range(_MOST):
        if number >= len(found):
            return
        each = found[number]
        yield each
        info = getattr(each, "exc_info", None)
        further = [info[1] if info else None, getattr(each, "cause", None), each.__cause__, each.__context__]
        found += [one for one in further if isinstance(one, BaseException) and one not in found]
