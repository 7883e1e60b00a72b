"""Pictures from a Python program that have keys: a source, so that jobs over them keep books."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import replace
from typing import Any, Final, cast

from ....errors import ConfigError, ItemError, ReadError, SourceError
from ...sources import Entry, Item, Source, Version, absolute
from .inputs import source_of

_CALL: Final = "embed_images(stable_keys=True)"


class KeyedPictures(Source):
    """``(key, picture)`` pairs, or items, whose keys are the same in every run, in the same order.

    A job that keeps books goes through them twice in its first run: for the keys, then for the pictures. So they must
    be what can be read again: a list, an object with ``__iter__``, or a function that makes an iterator. A later run
    reads them once, passing by what is done. Nothing is kept but the pictures under way.

    New ones may come at the end. Where the keys come in the order of their bytes, new, changed and gone ones are found
    anywhere; what is changed is seen by the number of bytes, or by the version of an item.

    Args:
        pictures: each a pair of a text and a path, bytes, a PIL image, an array, or a function that gives one of
            these, called when it is its turn; or an `Item` with a path or data.

    Raises:
        ConfigError: they are nothing that can be iterated over.
    """

    in_memory = True

    def __init__(self, pictures: str | os.PathLike[str] | Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        one = isinstance(pictures, (str, bytes, os.PathLike, Source))
        if one or not (callable(pictures) or _is_iterable(pictures)):
            what = type(pictures).__name__
            raise ConfigError(f"{_CALL} takes pairs of a key and a picture, or a function that makes them, not {what}")
        self._pictures = pictures
        self._reading: Iterator[Any] | None = None
        self._position = 0

    def __iter__(self) -> Iterator[Entry]:
        return map(_loaded, self._items())

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The keys, for a listing: no picture is made for them."""
        if isinstance(self._pictures, Iterator):
            raise ConfigError(
                "stable_keys: these pictures can be read only once, and a job's first run reads them for their keys"
                " before it reads them to embed them: give a list, or the function that makes the generator"
                " (embed_images(pictures, ...), not embed_images(pictures(), ...))"
            )
        return ((0, item) for item in self._items())

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The picture at this position, which must have the key that it had. Its version may be another.

        Raises:
            SourceError: it has another, or there are not so many pictures now.
        """
        del version
        if self._reading is None or ordinal < self._position:
            self._reading, self._position = self._items(), 0
        found = None
        while self._position <= ordinal:
            found = next(self._reading, None)
            self._position += 1
            if found is None:
                break
        if found is None or found.key != name:
            now = "there is none" if found is None else f"it is {found.key!r}"
            raise SourceError(
                f"stable_keys: picture {ordinal} was {name!r} when the job listed them, and now {now}: the keys are not"
                " those of the run before; compare them with update=True, or start a new job"
            )
        return replace(_loaded(found), ordinal=ordinal)

    def total(self) -> int | None:
        """Of a list, how many there are."""
        return len(self._pictures) if isinstance(self._pictures, Sized) else None

    def emptiness(self) -> str:
        """What to say if there are none."""
        return "there was no picture to iterate over"

    def fingerprint(self) -> str:
        """The same for all: what the program does is its own."""
        return "pictures from Python, by their keys"

    def _items(self) -> Iterator[Item]:
        """All of them, each checked; pictures as they were given."""
        given: Any = self._pictures if _is_iterable(self._pictures) else cast("Callable[[], Any]", self._pictures)()
        before = None
        for position, one in enumerate(given):
            item = _item(position, one)
            if item.key == before:
                raise ConfigError(f"stable_keys: pictures {position - 1} and {position} have the same key {before!r}")
            before = item.key
            yield item


def _is_iterable(value: object) -> bool:
    return isinstance(value, Iterable) or hasattr(value, "__getitem__")


def _item(position: int, one: Any) -> Item:
    item: Item | None
    match one:
        case Item():
            item = one
        case (key, picture):
            item = Item(key, data=picture, version=Version(len(picture)) if isinstance(picture, bytes) else None)
        case _:
            item = None
    if item is None or (item.path is None) == (item.data is None):
        what = "a pair of a key and a picture, or an Item with a path or data"
        raise ConfigError(f"stable_keys: picture {position} must be {what}, not {one!r:.100}")
    if not _is_key(item.key):
        raise ConfigError(f"stable_keys: the key of picture {position} must be a text, not {item.key!r:.100}")
    return item


def _is_key(key: object) -> bool:
    return isinstance(key, str) and key != "" and _is_unicode(key)


def _is_unicode(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _loaded(item: Item) -> Item:
    """With what the workers take; what cannot be had is the error that its row comes to."""
    value: Any = item.data
    if value is None:
        return item
    if callable(value):
        try:
            value = value()
        except ItemError as error:
            value = error
        except Exception as error:  # noqa: BLE001  (whatever it is belongs to this picture)
            value = ReadError(f"{type(error).__name__}: {error}")
    source: Any = value if isinstance(value, ItemError) else source_of(value)
    if isinstance(source, str):
        return replace(item, path=absolute(source), data=None)
    return replace(item, data=source)
