"""What lies at a path, and what it is called. No path can make this raise, whatever is in it or under it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, NamedTuple

from ...errors import ItemError, ReadError
from ...messages import kind_of_path, redact
from ...references import Version

_UNUSUAL: Final = re.compile(r"/\.{0,2}(/|$)")
"""An empty part, ``.`` or ``..``; a slash at the end."""

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

FILE_URL: Final = "file://"

URL_SCHEMES: Final = ("http", "https", "s3", "gs", "az")
"""Of the URLs that are read, each for one picture."""


class Found(NamedTuple):
    """Something on disk. A named tuple, as there are millions.

    Attributes:
        path: absolute; of what is no path at all, its text.
        problem: why it cannot be read at all; None for a regular file and for a folder.
        folder: it is a folder, or a link to one.
        aside: why it is left out, in a phrase; empty where it is not.
        named: somebody gave this very path.
        version: size and time of the last change, where it was looked at.
        url: it is no path but a URL.
    """

    path: str
    problem: ItemError | None = None
    folder: bool = False
    aside: str = ""
    named: bool = False
    version: Version | None = None
    url: bool = False


def look(path: str, named: bool = False) -> Found:
    """What lies at a path, links followed. Opens nothing: opening a FIFO waits, opening a device may do things."""
    try:
        status = os.stat(path)  # noqa: PTH116  (as text, once a picture)
    except (OSError, ValueError) as error:
        return Found(path, ReadError(f"cannot be read: {reason(error)}"))
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return Found(path, None, False, "", named, Version(status.st_size, status.st_mtime_ns))
    if stat.S_ISDIR(mode):
        return Found(path, folder=True)
    return Found(path, ReadError(f"is {kind_of_path(mode)}, not a regular file"))


def look_for(name: str) -> Found:
    """What lies under a name that somebody gave: relative, a URL, too long, no path at all."""
    name = path_of_url(name)
    if is_url(name):
        why = why_unread(name)
        return Found(redact(name), ReadError(why)) if why else Found(name, url=True)
    try:
        return look(absolute(name), named=True)
    except OSError as error:  # the current folder is gone
        return Found(name, ReadError(f"cannot be read: {reason(error)}"))


def absolute(path: str) -> str:
    """The path from the root on, as the user knows it: links stay, unless ``..`` makes their target matter.

    Raises:
        OSError: the path is relative and the current folder is gone.
    """
    if is_plain(path):
        return path
    below = "/" + path.removeprefix("./")
    if path and not path.startswith("/") and is_plain(below):
        here = os.getcwd()
        return below if here == "/" else here + below
    full = str(Path(path).absolute())
    return real_path(full) if ".." in Path(path).parts else full


def file_version(path: str) -> Version:
    """Size and time of the last change of a file, as they are now; of none, nothing: whoever reads it will say so."""
    try:
        status = os.stat(path)  # noqa: PTH116  (as text, once a picture)
    except OSError:
        return Version()
    return Version(status.st_size, status.st_mtime_ns)


def anchored(path: str) -> str:
    """One spelling of a path, whether it ends in a slash or not. ``..`` stays: behind a link it means another place."""
    return path if is_plain(path) else str(Path(path).absolute())


def real_path(path: str) -> str:
    """The path with its links resolved; itself where it can be no path, which whoever looks at it is told."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL, or a surrogate that never was a byte, in the name of a folder
        return path


def is_plain(path: str) -> bool:
    """Whether it is absolute and spelled in the one usual way."""
    return path.startswith("/") and not _UNUSUAL.search(path)


def is_url(name: str) -> bool:
    """Whether it is one, and no file has this odd name."""
    return "://" in name and _URL.match(name) is not None and not os.path.lexists(name)


def path_of_url(name: str) -> str:
    """The path of a file's URL on this machine; anything else as it is."""
    if not name.startswith(FILE_URL) or os.path.lexists(name):
        return name
    from urllib.parse import unquote_to_bytes  # for those only who have such URLs

    path = name.removeprefix(FILE_URL).removeprefix("localhost")
    return os.fsdecode(unquote_to_bytes(os.fsencode(path))) if path.startswith("/") else name


def why_unread(url: str) -> str:
    """Why a URL cannot be one of a picture; empty where it can."""
    scheme, _, rest = url.partition("://")
    place, _, name = rest.partition("/")
    if scheme.lower() == "file":
        return "a file's URL has three slashes: file:///folder; other machines' files are not read"
    if scheme.lower() not in URL_SCHEMES:
        return f"of URLs, those of {', '.join(URL_SCHEMES)} are read"
    if "@" in place:
        return "credentials in a URL are not taken: stores get them from the environment"
    if not place or not (name or scheme.lower() in ("http", "https")):
        return "names no picture"
    try:
        url.encode()
    except UnicodeEncodeError:
        return "is no URL: it is not UTF-8"
    return "is no URL: it holds a control character" if _CONTROL.search(url) else ""


def not_read(url: str) -> str:
    """Why a URL is not read in a place where only files are."""
    return why_unread(url) or "URLs are not read here yet: download the pictures, and give their paths"


def reason(error: OSError | ValueError) -> str:
    """Why a path cannot be read, in the system's words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
