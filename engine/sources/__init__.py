"""Where items come from. See the README beside this file."""

from .base import Broken, Entry, Filtered, Item, Source, key_of, path_of
from .files import FileSource

__all__ = ["Broken", "Entry", "FileSource", "Filtered", "Item", "Source", "key_of", "path_of"]
