"""What sources are made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from .base import Source
from .kinds import PICTURES, Media
from .selection import ALL, Selection
from .url_options import UrlOptions


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What a source is made with besides its specs.

    Attributes:
        selection: what is wanted of folders.
        stdin: what ``-`` reads; standard input by default.
        null: paths in lists end with NUL rather than with a line's end.
        later: look at what the specs name when the first entry is asked for, not now: a job that goes on with its
            listing may never need it.
        urls: how what URLs lead to is read.
        media: what is looked for in folders, lists and stores.
    """

    selection: Selection = ALL
    stdin: BinaryIO | None = None
    null: bool = False
    later: bool = False
    urls: UrlOptions = field(default_factory=UrlOptions)
    media: Media = PICTURES


Factory = Callable[[Sequence[str], SourceOptions], Source]
"""Takes all the specs, which have its scheme, whole; the source's `specs` make the same one again in any folder. Raises
SourceError for what is not there."""
