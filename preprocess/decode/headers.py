"""What some bytes are, by their first few: the gate before any decoder, and the words of its refusals."""

from __future__ import annotations

from typing import Final, Literal

from ...errors import DecodeError, TruncatedError, UnreadableError, UnsupportedFormatError
from ...messages import without_addresses
from ...picture_formats import FORMATS, picture_format
from .tiff import camera_raw

_OTHERS: Final = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstandard data"),
    (b"\x7fELF", "a program"),
    (b"RIFF", "a RIFF file (sound or film)"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)
_TEXTS: Final = (
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"<head", "HTML"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)
_SIGNATURE_ONLY: Final = 16
"""Bytes; up to here a file is only a signature, with nothing that could have been cut."""


def describe(head: bytes) -> str:
    """In words, what data that starts like this seems to be."""
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "only zero bytes"
    for magic, words in _OTHERS:
        if head.startswith(magic):
            return words
    if head[4:8] == b"ftyp":
        return "a film (ISO media)"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, words in _TEXTS:
        if text.startswith(magic):
            return words
    if all(32 <= c < 127 or c in b"\t\r\n" for c in head):
        return "plain text"
    return f"unknown data (first bytes {head[:8].hex(' ')})"


def check_format(data: bytes | memoryview, allowed: tuple[str, ...]) -> str:
    """The format of a picture, by its signature, if it may be decoded.

    Args:
        data: The whole file.
        allowed: Formats that may be decoded, of `FORMATS`.

    Raises:
        UnreadableError: Not a picture at all; says what it looks like.
        UnsupportedFormatError: A picture of a format that is not allowed.
    """
    head = bytes(data[:64])
    name = picture_format(head)
    if name is None:
        raise UnreadableError(f"not a picture: looks like {describe(head)} ({len(data)} bytes)")
    if name == "TIFF" and (raw := camera_raw(data)):
        name = f"camera raw ({raw})"
    if name not in allowed:
        way_out = "add it to the preprocessing's formats" if name in FORMATS else "convert the file first"
        raise UnsupportedFormatError(f"format {name} is not on the allow-list ({', '.join(allowed)}): {way_out}")
    if len(data) <= _SIGNATURE_ONLY:
        raise UnreadableError(f"not a picture: only the signature of a {name} ({len(data)} bytes)")
    return name


def refusal(name: str, data: bytes | memoryview, error: Exception) -> DecodeError:
    """The item error for what a plugin raised.

    Plugins say "truncated" in a dozen ways, and for a cut header only "cannot identify"; the end marker of the format
    is the better witness. It is asked only after a failure: many good files lack it.
    """
    words = without_addresses(str(error))  # the same failure in the same words each time
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    if isinstance(error, MemoryError):
        return DecodeError(f"{name}: no memory to decode it; lower max_pixels (--max-pixels) or the number of workers")
    if not complete(name, data) or "truncated" in str(error).lower():
        return TruncatedError(f"{name} of {len(data)} bytes ends too early ({said})")
    return DecodeError(f"{name} cannot be decoded ({said})")


def complete(name: str, data: bytes | memoryview) -> bool:
    """Whether the data ends like a whole file of its format; True where the format cannot tell."""
    head, tail = bytes(data[:16]), bytes(data[-64:])
    match name:
        case "JPEG":
            return tail.rstrip(b"\0").endswith(b"\xff\xd9")
        case "PNG":
            return b"IEND" in tail
        case "GIF":
            return tail.rstrip(b"\0").endswith(b";")
        case "WEBP":
            return int.from_bytes(head[4:8], "little") + 8 <= len(data)
        case "BMP":
            return int.from_bytes(head[2:6], "little") <= len(data)
        case "TIFF":
            order: Literal["little", "big"] = "little" if head[:1] == b"I" else "big"
            wide = head[2:4] in (b"+\0", b"\0+")
            offset = int.from_bytes(head[8:16] if wide else head[4:8], order)
            return offset + 2 <= len(data)
        case _:
            return True


def webp_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height a WEBP header promises, or None if it cannot be read.

    Pillow's plugin allocates the whole canvas while opening, so the limit must be checked before.
    """
    head = bytes(data[12:30])
    kind, body = head[:4], head[8:]
    if kind == b"VP8X" and len(body) >= 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) >= 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None
