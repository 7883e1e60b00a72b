"""Where items come from. See the README beside this file."""

from ...references import Fetcher, Locator, Reference, Version
from .base import MANY, Order, Source, SourceMemory
from .entries import Broken, Entry, Filtered, Item, key_of, path_of
from .files import FileSource
from .kinds import VIDEOS
from .options import SourceOptions
from .paths import absolute, anchored
from .registry import SOURCES, open_source
from .selection import Selection
from .specs import STDIN
from .url_options import UrlOptions

__all__ = [
    "MANY",
    "SOURCES",
    "STDIN",
    "VIDEOS",
    "Broken",
    "Entry",
    "Fetcher",
    "FileSource",
    "Filtered",
    "Item",
    "Locator",
    "Order",
    "Reference",
    "Selection",
    "Source",
    "SourceMemory",
    "SourceOptions",
    "UrlOptions",
    "Version",
    "absolute",
    "anchored",
    "key_of",
    "open_source",
    "path_of",
]
