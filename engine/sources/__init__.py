"""Where items come from. See the README beside this file."""

from .base import Broken, Entry, Filtered, Item, Source, key_of, path_of
from .files import STDIN, FileSource, look_again

__all__ = ["STDIN", "Broken", "Entry", "FileSource", "Filtered", "Item", "Source", "key_of", "look_again", "path_of"]
