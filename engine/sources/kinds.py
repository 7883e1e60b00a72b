"""A picture (or a video) or not: by name where the name says it, else by the first bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ... import video_formats
from ...picture_formats import CR2, FORMATS, KNOWN, picture_format

SNIFFED_BYTES = 16

_EXTENSION: Final = re.compile(r"[^/.][^/]*\.[A-Za-z][A-Za-z0-9]{0,7}$")

_READ_ALONE = {"tar": "an archive", **dict.fromkeys(("parquet", "arrow", "feather"), "a table")}
"""What has pictures in it, and is a source of another kind."""

_ARCHIVES = frozenset(["tgz", "gz", "bz2", "xz", "zst", "zip", "7z", "rar"])
_TABLES = frozenset(["csv", "tsv", "json", "jsonl", "ndjson", "orc", "xlsx"])


def has_extension(path: str) -> bool:
    """Whether the name says what is in it, whatever that is."""
    return _EXTENSION.search(path) is not None


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that begins so is one of the six formats we decode, or nearly (a CR2 is a TIFF at its beginning).

    Args:
        head: its first `SNIFFED_BYTES` bytes, or all if it is shorter.
    """
    name = picture_format(head)
    if name == "BMP":  # two letters are little evidence: a bitmap's reserved fields are zero too
        return head[6:10] == bytes(4)
    return name in FORMATS or name == CR2


def what_else(path: str, head: bytes, named: bool) -> str:
    """What a file may be, as it is no picture; and what was probably meant.

    Args:
        path: its name says most.
        head: its first bytes.
        named: somebody gave it as a source; else it was found in a folder.
    """
    name = os.path.basename(path)
    extension = name.rpartition(".")[2].lower()
    if extension in _READ_ALONE:
        return f"not a picture but {_READ_ALONE[extension]} that may hold some: a job of its own reads *.{extension}"
    if not named:
        return "not a picture"
    if extension in _ARCHIVES:
        return "not a picture but an archive: unpack it, and give the folder"
    if extension in _TABLES:
        return "not a picture but a table: write its paths to a text file, one a line, and give that as @FILE"
    if head and not any(byte < 32 and byte not in b"\t\n\r" for byte in head):
        return f"not a picture; if it is a list of paths, give it as @{name}"
    return "not a picture"


def read_head(path: str) -> bytes:
    """The first bytes of a regular file.

    Raises:
        OSError: it cannot be opened or read.
    """
    # Non-blocking: a FIFO may have taken the file's place since it was listed, and opening it would wait for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, SNIFFED_BYTES)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Media:
    """What a source looks for.

    Attributes:
        noun: what people call one.
        suffixes: of names that are candidates, whatever is in them: ``.jpg``.
        looks_like: whether a file that begins with these bytes is one.
        what_else: what it is instead, by its path, its first bytes, and whether it was named.
    """

    noun: str
    suffixes: frozenset[str]
    looks_like: Callable[[bytes], bool]
    what_else: Callable[[str, bytes, bool], str]

    def has_name(self, path: str) -> bool:
        """Whether the extension is that of one."""
        return path[path.rfind(".") :].lower() in self.suffixes  # of millions: without a dot it is its last letter


def _suffixes(extensions: Iterable[str]) -> frozenset[str]:
    return frozenset("." + extension for extension in extensions)


PICTURES: Final = Media("picture", _suffixes(KNOWN), looks_like_picture, what_else)
VIDEOS: Final = Media("video", _suffixes(video_formats.KNOWN), video_formats.looks_like_video, lambda *_: "not a video")
