"""What the first bytes of a file say it is: name and type of what comes from strangers say nothing."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import urlsplit

Kind = Literal["video", "page", "playlist", "other"]

ENOUGH: Final = 512
"""Bytes that say what a file is."""

_TS: Final = 188
"""Bytes of a packet of an MPEG transport stream; each begins with a sync byte."""

_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")

_BEGINNINGS: Final = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"OggS",
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG video
    b"\x06\x0e\x2b\x34",  # MXF
)

_PAGES: Final = (b"<!doctype html", b"<html", b"<head", b"<body", b"<!--", b"<script")
_PLAYLISTS: Final = (b"#extm3u", b"<mpd", b"<smil", b"ffconcat")

FILES: Final = frozenset(
    {"mp4", "m4v", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "wmv", "flv", "ogv", "3gp", "mxf"}
)
"""How the path of a URL ends that is a file."""


def kind_of(head: bytes) -> Kind:
    """What begins so: a container of video, a page, a list of where videos are, or none of these.

    Args:
        head: the first `ENOUGH` bytes, or all there are.
    """
    if head[4:8] in _BOXES or head.startswith(_BEGINNINGS) or _is_avi(head) or _is_transport_stream(head):
        return "video"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PLAYLISTS) or (text.startswith(b"<?xml") and b"<mpd" in text):
        return "playlist"
    if text.startswith(_PAGES) or (text.startswith(b"<?xml") and b"<html" in text):
        return "page"
    return "other"


def is_file_name(url: str) -> bool:
    """Whether a URL is called like a file of video."""
    return _ending(url) in FILES


def is_playlist_name(url: str) -> bool:
    """Whether a URL is called like a list of the segments of a stream (HLS, DASH)."""
    return _ending(url) in ("m3u8", "mpd")


def _ending(url: str) -> str:
    return urlsplit(url).path.rpartition(".")[2].lower()


def _is_avi(head: bytes) -> bool:
    return head.startswith(b"RIFF") and head[8:12] == b"AVI "


def _is_transport_stream(head: bytes) -> bool:
    """Packets of 188 bytes, of a camera with 4 more before each."""
    return any(len(head) > at + size and head[at] == head[at + size] == 0x47 for at, size in ((0, _TS), (4, _TS + 4)))
