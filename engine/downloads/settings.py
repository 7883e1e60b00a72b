"""How videos are downloaded, and what came of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from ...errors import ConfigError
from ...object_stores import StoreOptions
from .workspace import META, VIDEO, read_json

Way = Literal["auto", "fetch", "yt-dlp"]
"""By what a URL is downloaded: by what it turns out to be, as a file, as a page."""

_AT_LEAST: Final = {"max_bytes": 1, "workers": 1, "per_host": 1, "refusals": 1, "max_height": 1}


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """How videos are downloaded. No secrets: cookies are named by their file.

    Attributes:
        way: ``fetch``: a URL is a file; ``yt-dlp``: a page; ``auto``: whichever it turns out to be.
        max_bytes: of one video; more are refused, counted as they come.
        deadline: seconds that one download may take; then its process is killed.
        stall: seconds within which something has to come.
        workers: downloads at once, each in a process of its own.
        per_host: of them from one host.
        refusals: answers in a row by which a host says that it does not want to be asked (429, 403, "sign in to
            confirm"), after which it is left alone for the rest of the run.
        allowed: hosts that may have private addresses: ``host`` or ``host:port``.
        max_height: lines of the picture that is chosen where a page has several.
        max_duration: seconds of video; None: any. Of a page that says how long it is nothing is downloaded then; of a
            file it is known when it is there. Live streams are refused.
        cookies: a file of cookies in Netscape's format, for pages; read, never written.
        politeness: seconds between two downloads from pages, at least.
        extractors: those of yt-dlp that may be used, as regular expressions; None: all.
        stores: how object stores are spoken to.

    Raises:
        ConfigError: one of them makes no sense.
    """

    way: Way = "auto"
    max_bytes: int = 4 * 2**30
    deadline: float = 3600.0
    stall: float = 20.0
    workers: int = 3
    per_host: int = 2
    refusals: int = 5
    allowed: tuple[str, ...] = ()
    max_height: int = 720
    max_duration: float | None = None
    cookies: str | None = None
    politeness: float = 5.0
    extractors: tuple[str, ...] | None = None
    stores: StoreOptions = field(default_factory=StoreOptions)

    def __post_init__(self) -> None:
        if self.way not in get_args(Way):
            raise ConfigError(f"downloader: {self.way!r} is none of {', '.join(get_args(Way))}")
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} of downloads must be at least {least}, not {getattr(self, name)}")
        for name in ("deadline", "stall"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} of downloads must be above 0 seconds, not {getattr(self, name)}")


def too_long(seconds: float, longest: float) -> str:
    """What is said of a video that takes more time than is wanted."""
    return f"{seconds:g} s long; max_duration allows {longest:g}"


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A video that lies on the disk.

    Attributes:
        path: of the file.
        url: where it came from in the end, without secrets.
        title: as its page says; empty where there is none.
        duration_s: seconds, as its page says, or its file; None where neither does.
        size: bytes.
        etag: of its file; empty where there is none.
        is_complete: whether all of it came; None where the server did not say how much there is.
        way: by what it was downloaded: ``fetch``, ``yt-dlp`` or ``store``.
        metadata: what else is known: names and numbers.
    """

    path: Path
    url: str
    title: str = ""
    duration_s: float | None = None
    size: int = 0
    etag: str = ""
    is_complete: bool | None = True
    way: str = "fetch"
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """For ``meta.json``, beside which it lies."""
        return {name: value for name, value in asdict(self).items() if name != "path"}

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The video in a folder, as an earlier download has left it; None where there is none."""
        path = folder / VIDEO
        meta = read_json(folder / META) if path.is_file() else None
        try:
            return cls(path, **meta) if meta is not None else None
        except TypeError:  # another version wrote it
            return None
