"""A video behind a page, by yt-dlp: with settings of ours only, and nothing of it taken on trust."""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ...backoff import Backoff
from ...errors import ConfigError, DownloadError, ItemError, TooLargeError
from ...messages import redact
from .address_guard import guarded
from .page_errors import failure_of
from .settings import DownloadSettings, too_long

_LOG: Final = logging.getLogger("penstock.downloads")

_ATTEMPTS: Final = 3
_BACKOFF: Final = Backoff(0.2, 10.0)


def _wait(n: int) -> float:
    """Seconds before an attempt, as yt-dlp asks for them: by the name of how many have failed, from 0 on."""
    return _BACKOFF.delay(n + 1)


_FIXED: Final[Mapping[str, Any]] = {
    "format_sort": ["vcodec:h264", "proto:https"],
    "outtmpl": {"default": "video.%(ext)s"},  # never a name of the page's
    "noplaylist": True,
    "playlist_items": "1",
    "ignoreerrors": False,
    "quiet": True,
    "noprogress": True,
    "color": "never",
    "retries": _ATTEMPTS,
    "fragment_retries": _ATTEMPTS,
    "file_access_retries": 1,
    "extractor_retries": 1,
    "retry_sleep_functions": {"http": _wait, "fragment": _wait},
    "skip_unavailable_fragments": False,  # else a hole is a success
    "continuedl": False,  # else a file that has changed becomes a splice of two
    "overwrites": True,
    "cachedir": False,
    "updatetime": False,
    "usenetrc": False,
    "fixup": "never",
    "postprocessors": [],  # one of them is a shell
    "external_downloader": {"default": "native"},
}
"""Settings of yt-dlp that are nobody's to choose: none is taken from a configuration or from a URL."""

_OURS: Final = "[protocol~='^(http|m3u8|ism|f4m)']"
"""Formats that yt-dlp gets by itself: for others it would start a program that connects to wherever a page says."""

_PYTHON_S: Final = frozenset({"Urllib", "Requests", "Websockets"})
"""What yt-dlp asks servers by, of what may be installed, that `address_guard` sees."""

_LIVE: Final = ("is_live", "is_upcoming", "post_live")

_KEPT: Final = ("id", "extractor", "uploader", "channel", "upload_date", "width", "height", "fps", "vcodec", "ext")
"""What else is kept of what a page says."""


class PageDownload:
    """One video of one page.

    Args:
        url: of the page.
        folder: a fresh one: whatever is written lies in it, under names that are fixed.
        settings: of downloads.
    """

    def __init__(self, url: str, folder: Path, settings: DownloadSettings) -> None:
        self._url = url
        self._folder = folder
        self._settings = settings
        self._declined = ""
        self._words = _Words()

    def run(self) -> tuple[Path, Mapping[str, Any]]:
        """Download it.

        Returns:
            The file, and what the page says of it.

        Raises:
            ConfigError: yt-dlp is not installed, or the cookies cannot be read.
            TooLargeError: it has more bytes than allowed.
            DownloadError: it cannot be had, or is not wanted; its `errno` says whether it may come another time.
            OSError: the disk refuses.
        """
        options = self._options()
        try:
            with guarded(self._settings.allowed), python_session(options) as session:
                found = session.extract_info(self._url, download=True)
        except Exception as error:  # noqa: BLE001
            raise failure_of(self._url, error) from None  # some of its errors come naked
        return self._file(found or {})

    def _file(self, found: Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
        """The file that it wrote: that it returns without an error says nothing."""
        info = found if "requested_downloads" in found else next(iter(found.get("entries") or ()), None) or found
        for each in info.get("requested_downloads") or ():
            path = Path(str(each.get("filepath")))
            if path.is_file() and path.parent == self._folder:
                return path, info
        if self._declined:
            raise DownloadError(f"{redact(self._url)!r}: {self._declined}")
        if "max-filesize" in self._words.last:
            raise self._too_large()
        raise DownloadError(f"{redact(self._url)!r}: nothing was downloaded: {redact(self._words.last) or 'no reason'}")

    def _options(self) -> dict[str, Any]:
        settings, pause = self._settings, self._settings.politeness
        low = f"[height<={settings.max_height}]"
        wanted = (f"bv*{low}[vcodec!=none]", f"b{low}", "bv*", "b")
        return {
            **_FIXED,
            "format": "/".join(one + _OURS for one in wanted),  # one: nothing is merged
            "paths": {"home": str(self._folder)},
            "ffmpeg_location": str(self._folder / "none"),  # no program of the machine's
            "logger": self._words,
            "socket_timeout": settings.stall,
            "sleep_interval_requests": 0.15 * pause,
            "sleep_interval": pause,
            "max_sleep_interval": 3 * pause,
            "cookiefile": self._cookies(),
            "allowed_extractors": list(settings.extractors or ["default"]),
            "max_filesize": settings.max_bytes,  # looks at Content-Length only
            "match_filter": self.decline,
            "progress_hooks": [self._count],
        }

    def _cookies(self) -> io.StringIO | None:
        """A copy of the user's file: yt-dlp writes it anew at its end. In memory, so that none is left behind."""
        if self._settings.cookies is None:
            return None
        try:
            return io.StringIO(Path(self._settings.cookies).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cookies: {self._settings.cookies!r} cannot be read: {error}") from None

    def decline(self, info: Mapping[str, Any], *, incomplete: bool = False) -> str | None:  # noqa: ARG002
        """Why a video is not wanted, by what its page says."""
        longest, seconds = self._settings.max_duration, info.get("duration")
        if info.get("is_live") or info.get("live_status") in _LIVE:
            self._declined = "a live stream"
        elif longest is not None and seconds and seconds > longest:
            self._declined = too_long(seconds, longest)
        return self._declined or None

    def _count(self, state: Mapping[str, Any]) -> None:
        """Called for each piece that came."""
        if max(state.get("downloaded_bytes") or 0, state.get("total_bytes") or 0) > self._settings.max_bytes:
            raise self._too_large()

    def _too_large(self) -> ItemError:
        return TooLargeError(f"{redact(self._url)!r} has more bytes than max_file_bytes={self._settings.max_bytes}")


class _Words:
    """What yt-dlp says, which goes to the log of this process at most; its last words explain what it did not do."""

    last = ""

    def debug(self, message: str) -> None:
        self.last = message
        _LOG.debug("yt-dlp: %s", redact(message))

    warning = error = info = debug


def described(info: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of what a page says of its video, by the names of `Downloaded`."""
    duration = info.get("duration")
    return {
        "url": redact(str(info.get("webpage_url") or "")),
        "title": str(info.get("title") or ""),
        "duration_s": float(duration) if isinstance(duration, int | float) else None,
        "metadata": {name: info[name] for name in _KEPT if isinstance(info.get(name), str | int | float)},
    }


def is_installed() -> bool:
    """Whether yt-dlp is there; not imported for this."""
    return importlib.util.find_spec("yt_dlp") is not None


def is_known_site(url: str) -> bool:
    """Whether an extractor of yt-dlp is made for this URL, rather than for whatever there may be."""
    _library()
    from yt_dlp.extractor import gen_extractor_classes

    classes: Sequence[Any] = gen_extractor_classes()
    return any(each.suitable(url) and each.ie_key() != "Generic" for each in classes)


def python_session(options: Mapping[str, Any]) -> Any:
    """yt-dlp with these settings, whose requests all go by sockets of Python's: those of curl meet no guard."""

    class Session(_library().YoutubeDL):  # type: ignore[misc]
        def build_request_director(self, handlers: Iterable[Any], preferences: Any = None) -> Any:
            return super().build_request_director([each for each in handlers if each.RH_KEY in _PYTHON_S], preferences)

    return Session(dict(options), auto_init=True)


def _library() -> Any:
    """yt-dlp, without plugins: these are any package on the path, and run when it is first used."""
    try:
        import yt_dlp
        import yt_dlp.globals
    except ImportError as error:
        raise ConfigError("videos behind pages need yt-dlp: pip install 'penstock[yt-dlp]'") from error
    yt_dlp.globals.plugin_dirs.value = []
    return yt_dlp
