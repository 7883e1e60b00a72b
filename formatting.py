"""Figures and names for people: units, and names that can do nothing to a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CALLED: Final[Mapping[str, str]] = {"preprocess": "pixels", "sink": "store"}
"""What a job was begun with by the words that people know, where the books have others."""


def printable(text: str) -> str:
    r"""Text for a terminal or a page: what cannot be seen is escaped (``\x1b``, ``\n``, ``\u202e``, ``\udcff``).

    File names are chosen by strangers: an escape sequence in one could retitle or repaint the terminal, a newline forge
    a line of the report, a direction mark show another extension.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def count(number: int) -> str:
    """``12,345``."""
    return f"{number:,}"


def rate(per_second: float) -> str:
    """``1,234/s``, ``2.5/s``."""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"


def percent(share: float) -> str:
    """``97 %`` of a share of 0..1."""
    return f"{share:.0%}".replace("%", " %")


def size(nbytes: float) -> str:
    """``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" or nbytes >= 100 else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def clock(seconds: float) -> str:
    """A place in a video: ``0:01:02.500``, hours, minutes, seconds."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}.{thousandths:03}"


def milliseconds(value: float) -> str:
    """``0.35``, ``12.3``, ``450``."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def plural(number: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"
