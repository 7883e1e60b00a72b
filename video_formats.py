"""Formats of videos: their extensions, and the bytes that they begin with."""

from __future__ import annotations

from typing import Final

_NAMES: Final = "mp4 m4v mov qt mkv webm avi ts m2ts mts m2t mpg mpeg mpe m2v vob flv f4v ogv ogm wmv asf mxf 3gp 3g2"

KNOWN: Final = frozenset(_NAMES.split())
"""Extensions of videos. One whose container is not read ends as a dead letter with a reason."""

_SIGNATURES: Final = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"OggS",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF
    b"\0\0\x01\xba",  # MPEG program stream
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
)
_NO_VIDEO_BRANDS: Final = frozenset(
    {b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"crx ", b"M4A ", b"M4B ", b"M4P "}
)
"""Brands of ISO media files that are pictures or sound."""


def looks_like_video(head: bytes) -> bool:
    """Whether a file that begins so may be a video.

    Args:
        head: its first 16 bytes, or all if it is shorter.
    """
    if head[4:8] == b"ftyp":
        return head[8:12] not in _NO_VIDEO_BRANDS
    if head[:4] == b"RIFF":
        return head[8:12] == b"AVI "
    return head.startswith(_SIGNATURES)
