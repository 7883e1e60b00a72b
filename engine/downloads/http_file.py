"""A video that is a file behind an http(s) URL: one attempt, which goes on where an earlier one ended."""

from __future__ import annotations

import errno
import re
import time
from typing import Final

from ...errors import DeadlineError, DownloadError, UnreadableError
from ...messages import redact
from ..sources.answer import Answer, refused
from ..sources.safe_http import SafeHttp
from .part_file import PartFile
from .settings import DownloadSettings
from .sniff import ENOUGH, kind_of

_PIECE: Final = 2**18
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_HTML: Final = ("text/html", "application/xhtml+xml")
_LISTS: Final = ("application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "application/dash+xml")


class PageFound(Exception):  # noqa: N818  (says what a URL is, and is no failure)
    """The URL leads to a page, or to a list of where the video is: not to a file."""


class HttpFile:
    """What is behind a URL, to be written into a part file.

    Args:
        http: checks where it leads.
        url: of the file.
        settings: of downloads.
    """

    def __init__(self, http: SafeHttp, url: str, settings: DownloadSettings) -> None:
        self._http = http
        self._url = url
        self._settings = settings
        self._end = time.monotonic() + settings.deadline

    def fetch(self, part: PartFile) -> tuple[str, bool | None]:
        """Get the rest of it.

        Returns:
            The URL it came from in the end, and whether it is whole; None where the server does not say.

        Raises:
            PageFound: it is a page, and the server says so.
            UnreadableError: it is no video.
            TooLargeError: it has more bytes than allowed.
            DeadlineError: it takes too long.
            DownloadError: it cannot be had; its `errno` says whether it may another time.
            OSError: the disk refuses.
        """
        wanted = {"Range": f"bytes={part.have}-", "If-Range": part.tag} if part.tag and part.have else {}
        left = self._end - time.monotonic()
        try:
            with self._http.open(self._url, wanted, deadline=left, stall=self._settings.stall) as answer:
                self._begin(part, answer)
                self._copy(part, answer)
                return answer.url, True if answer.is_delimited else None
        except DownloadError:
            if time.monotonic() >= self._end:
                raise too_late(self._url, self._settings) from None
            raise

    def _begin(self, part: PartFile, answer: Answer) -> None:
        """Take the answer as the rest, or as the whole."""
        if answer.status == 416:
            part.discard()
            raise refused(self._url, "the file has become shorter; it is begun again", errno.EAGAIN)
        answer.check(200, 206)
        tag = answer.headers.get("ETag")
        if answer.status == 200:
            part.begin(tag, answer.length)
            return
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip().lower())
        if tag not in (None, part.tag) or not found or int(found[1]) != part.have:  # some servers ignore If-Range
            part.discard()
            raise refused(self._url, "the file has changed meanwhile; it is begun again", errno.EAGAIN)
        part.go_on(part.have, part.total if found[3] == "*" else int(found[3]))

    def _copy(self, part: PartFile, answer: Answer) -> None:
        head, looked = part.head(ENOUGH), False
        while data := answer.read1(_PIECE):
            if not looked:
                head += data[: ENOUGH - len(head)]
                looked = len(head) == ENOUGH and self._look(part, head, answer)
            part.write(data)
        if not looked:
            self._look(part, head, answer)
        if part.total is not None and part.have != part.total:
            raise refused(self._url, f"{part.have} bytes came, and {part.total} were told", errno.ECONNRESET)

    def _look(self, part: PartFile, head: bytes, answer: Answer) -> bool:
        """Refuse what is no video before it is downloaded.

        A page that says it is one may be where the video is; one that says it is a video is not to be trusted with
        more.
        """
        kind = kind_of(head)
        if kind == "video":
            return True
        part.discard()
        said = answer.headers.get_content_type()
        if (kind == "page" and said in _HTML) or (kind == "playlist" and said in _LISTS):
            raise PageFound(self._url)
        what = {"page": "a page of HTML", "playlist": "a playlist"}.get(kind, "no video")
        raise UnreadableError(f"{redact(self._url)!r} is {what}, though it is served as {said!r}")


def too_late(url: str, settings: DownloadSettings) -> DeadlineError:
    """What is said of a download that takes too long."""
    return DeadlineError(f"{redact(url)!r} took longer than a download may ({settings.deadline:g} s)")
