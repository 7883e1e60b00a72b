"""A worker's own side: one download after the other, each in a folder of its own."""

from __future__ import annotations

import errno
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from ...durable import TEMPORARY, put
from ...errors import DownloadError, ItemError, TooLargeError, UnreadableError, VideoError
from ...messages import redact
from ...object_stores import ObjectStores, StoreOptions, is_store_url
from ...preprocess.videos import open_video
from ..sources.safe_http import SafeHttp
from .http_file import HttpFile, PageFound
from .object_file import fetch_object
from .page import PageDownload, described, is_installed, is_known_site
from .part_file import PartFile
from .settings import Downloaded, DownloadSettings, too_long
from .sniff import ENOUGH, is_file_name, is_playlist_name, kind_of
from .workspace import META, VIDEO, write_json

_ATTEMPT: Final = "page."


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """What a worker is asked for.

    Attributes:
        url: of a file, an object or a page.
        folder: of the video.
        settings: of downloads.
    """

    url: str
    folder: str
    settings: DownloadSettings


def download(request: DownloadRequest) -> Downloaded:
    """Put a video into its folder: whole, opened once, and described beside it.

    Raises:
        ItemError: it cannot be had, or is no video.
        ConfigError: what it takes is not installed.
        OSError: the disk refuses.
    """
    settings, url = request.settings, request.url
    if (found := Downloaded.load(Path(request.folder))) is not None:  # by a worker that died before it could say so
        return found
    if is_store_url(url):
        return _from_store(request)
    if settings.way == "yt-dlp" or (settings.way == "auto" and _is_surely_a_page(url)):
        return _from_page(request)
    try:
        return _from_file(request)
    except PageFound:
        if settings.way == "fetch" or not is_installed():
            how = "--downloader auto" if is_installed() else "pip install 'penstock[yt-dlp]'"
            raise UnreadableError(f"{redact(url)!r} is a page, not a file; {how} looks for its video") from None
    return _from_page(request)


def _is_surely_a_page(url: str) -> bool:
    """Asked before the URL is: sites that count requests are not asked twice."""
    if is_file_name(url) or not is_installed():
        return False
    return is_playlist_name(url) or is_known_site(url)


def _from_file(request: DownloadRequest) -> Downloaded:
    with PartFile(Path(request.folder), request.settings.max_bytes) as part:
        source, is_complete = HttpFile(_http(request.settings.allowed), request.url, request.settings).fetch(part)
        etag = part.tag.strip('"')
        found = Downloaded(part.path, redact(source), size=part.have, etag=etag, is_complete=is_complete)
        return _finished(part, found, request.settings)


def _from_store(request: DownloadRequest) -> Downloaded:
    with PartFile(Path(request.folder), request.settings.max_bytes) as part:
        fetch_object(_stores(request.settings.stores), request.url, part)
        etag = part.tag.strip('"')
        found = Downloaded(part.path, redact(request.url), size=part.have, etag=etag, way="store")
        return _finished(part, found, request.settings)


def _finished(part: PartFile, found: Downloaded, settings: DownloadSettings) -> Downloaded:
    try:
        opened = _opened(found, settings)
    except ItemError:
        part.discard()
        raise
    return replace(opened, path=part.finish(opened.to_json()))


def _from_page(request: DownloadRequest) -> Downloaded:
    folder, settings = Path(request.folder), request.settings
    fresh = Path(tempfile.mkdtemp(TEMPORARY, _ATTEMPT, folder))
    path, info = PageDownload(request.url, fresh, settings).run()
    size = path.stat().st_size
    if size > settings.max_bytes:
        raise TooLargeError(f"{redact(request.url)!r} has {size} bytes; max_file_bytes allows {settings.max_bytes}")
    with path.open("rb") as file:
        if kind_of(file.read(ENOUGH)) != "video":
            raise UnreadableError(f"{redact(request.url)!r}: what came is no video, though yt-dlp says so")
    found = Downloaded(path, size=size, is_complete=None, way="yt-dlp", **described(info))
    found = _opened(found, settings)
    write_json(folder / META, found.to_json())
    put(path, folder / VIDEO)
    return replace(found, path=folder / VIDEO)


def _opened(found: Downloaded, settings: DownloadSettings) -> Downloaded:
    """A file is a video where its index can be read. One that may have been cut off may come whole another time."""
    try:
        with open_video(found.path) as video:
            duration_us = video.info.duration_us
    except VideoError as error:
        if found.is_complete is not None:
            raise
        cut = DownloadError(f"what came cannot be opened, and the server did not say how much there is: {error}")
        cut.errno = errno.ECONNRESET
        raise cut from None
    seconds = found.duration_s if duration_us is None else duration_us / 1e6
    if settings.max_duration is not None and seconds is not None and seconds > settings.max_duration:
        raise DownloadError(too_long(seconds, settings.max_duration))
    return replace(found, duration_s=seconds if found.duration_s is None else found.duration_s)


@cache
def _http(allowed: tuple[str, ...]) -> SafeHttp:
    return SafeHttp(allowed)


@cache
def _stores(options: StoreOptions) -> ObjectStores:
    return ObjectStores(options)
