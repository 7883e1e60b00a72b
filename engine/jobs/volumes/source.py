"""Which volumes there are, and their pages: folders of this machine, and prefixes of object stores."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property
from glob import escape, has_magic
from typing import Final, NamedTuple

from ....errors import ConfigError, ObjectStoreError, SourceError
from ....object_stores import ObjectStores, StoreOptions, StoreURL, is_store_url
from ...sources import Broken, Filtered, Item, Source, UrlOptions, Version, key_of
from ...sources.base import Order
from ...sources.entries import Entry, path_of
from ...sources.files import FileSource
from ...sources.object_store import ObjectStoreSource
from ...sources.orders import OrderSeen
from ...sources.paths import file_version
from .pages import ImageTask
from .places import local_folder

FINISHED: Final = "its volume is published already"


class VolumeRoot(NamedTuple):
    """A volume.

    Attributes:
        name: its `volume_id`: the last part of its place.
        place: URL or absolute path, without a slash at the end.
    """

    name: str
    place: str


class VolumeSource(Source):
    """The pages of volumes, volume by volume; of each the pages in the order in which its place lists them.

    Args:
        specs: folders, URLs of prefixes, or patterns of either (``s3://bucket/vol_*/``), of which each part between
            slashes matches by itself.
        is_finished: whether a volume is published: then nothing of it is listed.
        stores: how object stores are spoken to.

    Raises:
        ConfigError: a spec is no place of volumes.
    """

    def __init__(
        self,
        specs: Sequence[str],
        is_finished: Callable[[str], bool] = lambda _: False,
        stores: StoreOptions | None = None,
    ) -> None:
        if not specs:
            raise SourceError(
                "no volumes: give a folder, a prefix (s3://bucket/vol_1/), or a pattern of them in quotes"
            )
        self.specs = tuple(specs)
        self._patterns = [_Pattern.of(spec) for spec in specs]
        self._is_finished = is_finished
        self._options = UrlOptions(stores or StoreOptions())
        self._stores = ObjectStores(self._options.stores)
        self._seen = OrderSeen()

    @property
    def order(self) -> Order:  # type: ignore[override]
        """That of a walk; of stores as it was found in the last listing."""
        return self._seen.order if any(pattern.store for pattern in self._patterns) else "path"

    @cached_property
    def roots(self) -> list[VolumeRoot]:
        """The volumes there are, looked for once.

        Raises:
            SourceError: none is there, two have the same name, or one lies in another.
        """
        places = [place for pattern in self._patterns for place in sorted(self._places(pattern), key=_listed_at)]
        roots = {place: VolumeRoot(place.rpartition("/")[2], place) for place in places}
        seen: dict[str, str] = {}
        for root in roots.values():
            if root.name in seen:
                raise SourceError(f"two volumes are called {root.name!r}: {seen[root.name]} and {root.place}")
            if (outer := _outer(root.place, roots)) is not None:
                raise SourceError(f"{root.place} lies in another volume, {outer or '/'}: a page has one volume")
            seen[root.name] = root.place
        return list(roots.values())

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self.parts())

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The pages, each with the number of the spec that its volume is of."""
        numbers = {root.place: self._number_of(root) for root in self.roots}
        return ((numbers[root.place], entry) for root, entry in self.by_volume())

    def by_volume(self) -> Iterator[tuple[VolumeRoot, Entry]]:
        """The pages, each with its volume."""
        for root in self.roots:
            if self._is_finished(root.name):
                place = f"{root.place}/" if is_store_url(root.place) else root.place  # where its pages would be listed
                yield root, Filtered(key_of(place), FINISHED)
                continue
            for entry in self._pages(root):
                yield root, entry

    def listed(self) -> Iterator[tuple[int, str, Version | Filtered | Broken]]:
        """See `Source.listed`."""
        seen = OrderSeen()
        for part, name, found in super().listed():
            seen.take(part, name)
            yield part, name, found
        self._seen = seen

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The page of this path or URL."""
        path = None if is_store_url(name) else name
        return Item(key_of(name), path, ordinal=ordinal, version=version)

    def name_of(self, entry: Entry) -> str:
        """Its URL; of a file its path, of any bytes."""
        return entry.path if isinstance(entry, Item) and entry.path else path_of(entry.key)

    def version_of(self, item: Item) -> Version:
        """Of a file its size and the time of its last change, as they are now."""
        return super().version_of(item) if item.path is None else file_version(item.path)

    def _number_of(self, root: VolumeRoot) -> int:
        return next(
            number for number, each in enumerate(self._patterns) if each.root_of(f"{root.place}/") == root.place
        )

    def root_of(self, name: str) -> VolumeRoot:
        """The volume of a page, by the page's name alone.

        Raises:
            SourceError: it is below none of the specs.
        """
        for pattern in self._patterns:
            if (place := pattern.root_of(name)) is not None:
                return VolumeRoot(place.rpartition("/")[2], place)
        raise SourceError(f"{name!r} is a page of none of the volumes {' '.join(self.specs)}")

    def emptiness(self) -> str:
        """What to say if there are no pages."""
        return f"{' '.join(self.portable_specs())} has no pages"

    def portable_specs(self) -> Iterator[str]:
        """With absolute paths."""
        return (str(pattern) for pattern in self._patterns)

    def _places(self, pattern: _Pattern) -> list[str]:
        found = self._local(pattern) if pattern.store is None else self._remote(pattern)
        if not found:
            raise SourceError(f"{pattern}: there is no such volume")
        return found

    @staticmethod
    def _local(pattern: _Pattern) -> list[str]:
        found = [""]
        for part in pattern.parts:
            found = [f"{folder}/{name}" for folder in found for name in _folders(folder, part)]
        return found

    def _remote(self, pattern: _Pattern) -> list[str]:
        assert pattern.store is not None
        store, found = self._stores.of(pattern.store), [""]
        with _errors():
            for part in pattern.parts:
                if has_magic(part):
                    folders = [name for prefix in found for name in store.folders(prefix.rstrip("/"))]
                    found = [f"{name}/" for name in folders if fnmatchcase(name.rpartition("/")[2], part)]
                else:
                    found = [f"{prefix}{part}/" for prefix in found]
        return [f"{pattern.store.root}/{prefix}".rstrip("/") for prefix in found]

    def _pages(self, root: VolumeRoot) -> Iterator[Entry]:
        if not is_store_url(root.place):
            yield from FileSource([f"./{root.place}" if root.place.startswith("@") else root.place])
            return
        yield from ObjectStoreSource([f"{escape(root.place)}/"], self._options, later=True)


def task_of(item: Item, root: VolumeRoot, page: int) -> ImageTask:
    """What is to be done about a page that was listed: an object as it was then, a file as it is now."""
    version = item.version or Version()
    if item.path is not None:
        return ImageTask(item.key, None, None, root.name, page, item.ordinal)
    size = version.size if version.size >= 0 else None
    return ImageTask(item.key, version.tag or None, size, root.name, page, item.ordinal)


def failed_task(entry: Broken, root: VolumeRoot, page: int) -> ImageTask:
    """A page that could not even be listed well."""
    return ImageTask(entry.key, volume_id=root.name, page=page, ordinal=entry.ordinal)


class _Pattern(NamedTuple):
    """A spec, part by part.

    Attributes:
        store: of its bucket; None: this machine.
        parts: between its slashes.
    """

    store: StoreURL | None
    parts: tuple[str, ...]

    @classmethod
    def of(cls, spec: str) -> _Pattern:
        if is_store_url(spec):
            url = StoreURL.parse(spec)
            pattern = cls(url.at(""), tuple(filter(None, url.key.split("/"))))
        else:
            folder = local_folder(spec)
            assert folder is not None
            pattern = cls(None, tuple(filter(None, str(folder).split("/"))))
        if "**" in pattern.parts:
            raise ConfigError(f"{spec!r}: ** stands for folders at any depth, and a volume has one place: use *")
        return pattern

    def __str__(self) -> str:
        return f"{self.store.root if self.store else ''}/{'/'.join(self.parts)}"

    def root_of(self, name: str) -> str | None:
        """The place of the volume that a page of this name is in; None: none of this pattern."""
        start = f"{self.store.root}/" if self.store else "/"
        if not name.startswith(start):
            return None
        parts = name[len(start) :].split("/")
        own = parts[: len(self.parts)]
        matches = len(parts) > len(self.parts) and all(map(fnmatchcase, own, self.parts))
        literal = len(parts) > len(self.parts) and own == [*self.parts]
        return f"{start}{'/'.join(own)}".rstrip("/") if matches or literal else None


def _listed_at(place: str) -> bytes:
    """What volumes are in the order of, so that their pages are in that of one listing of all of them."""
    return f"{place}/".encode() if is_store_url(place) else os.fsencode(place).replace(b"/", b"\0")


def _outer(place: str, places: Container[str]) -> str | None:
    """Of these places the nearest one that a place lies in."""
    while "/" in place:
        place = place.rpartition("/")[0]
        if place in places:
            return place
    return None


def _folders(folder: str, part: str) -> list[str]:
    """Names of the folders in a folder that match."""
    if not has_magic(part) or os.path.lexists(f"{folder}/{part}"):
        return [part] if os.path.isdir(f"{folder}/{part}") else []  # noqa: PTH112
    try:
        names = os.listdir(folder or "/")  # noqa: PTH208
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    hidden = part.startswith(".")
    found = [name for name in names if fnmatchcase(name, part) and (hidden or not name.startswith("."))]
    return [name for name in found if os.path.isdir(f"{folder}/{name}")]  # noqa: PTH112


@contextmanager
def _errors() -> Generator[None]:
    """What a store refuses of a listing is the source's error."""
    try:
        yield
    except ObjectStoreError as error:
        raise SourceError(str(error)) from error
