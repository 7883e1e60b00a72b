"""Where items come from. See the README beside this file."""

from .base import Broken, Entry, Filtered, Item, Source, key_of, path_of
from .files import FileSource, look_again
from .paths import is_plain
from .selection import Selection
from .specs import STDIN

__all__ = [
    "STDIN",
    "Broken",
    "Entry",
    "FileSource",
    "Filtered",
    "Item",
    "Selection",
    "Source",
    "is_plain",
    "key_of",
    "look_again",
    "path_of",
]
