"""Pictures in object stores: ``s3://bucket/prefix``, ``gs://``, ``az://``, by whole folders, globs and single keys.

Listed as the store lists, page by page, in constant memory; read by workers, each picture as it was listed or not at
all. The key of a picture is its URL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ...errors import (
    ConfigError,
    ObjectDeniedError,
    ObjectNameError,
    ObjectNotFoundError,
    ObjectStoreError,
    SourceError,
)
from ...messages import redact
from ...object_stores import ObjectInfo, ObjectStore, ObjectStores, StoreURL
from ...references import Reference, Version
from .base import Order, Source
from .entries import Broken, Entry, Filtered, Item
from .kinds import PICTURES, Media, has_extension
from .options import SourceOptions
from .orders import OrderSeen
from .places import Place
from .selection import ALL, Selection
from .url_options import UrlOptions

_MARKER = "empty: the marker of a folder"


class ObjectStoreSource(Source):
    """Objects of one kind of store, in the order in which it lists them.

    An object whose name has the extension of a picture, or none at all, is a candidate; others are left out, unless
    ``--include`` asks for them. What overlaps is taken once.

    Args:
        specs: URLs: of a folder, a glob (``*``, ``?``, ``[...]``, ``**``), or one object.
        options: how they are read.
        selection: what is wanted of folders.
        later: ask the store when the first entry is asked for, not now.
        media: what is looked for.

    Raises:
        SourceError: nothing is there, or the store refuses.
        ConfigError: there are no credentials, or a library is missing.
    """

    sortable = True

    def __init__(
        self,
        specs: Sequence[str],
        options: UrlOptions | None = None,
        *,
        selection: Selection = ALL,
        later: bool = False,
        media: Media = PICTURES,
    ) -> None:
        if selection.follow_links:
            raise ConfigError(f"follow_links: is about folders of this machine, and {redact(specs[0])!r} has no links")
        self.specs = tuple(specs)
        self.selection = selection
        self.media = media
        self._selects = selection != ALL
        self._options = options or UrlOptions()
        self.locator = self._locator = self._options.locator
        self._places = [Place.of(spec) for spec in specs]
        self._stores = ObjectStores(self._options.stores)
        self._seen = OrderSeen()
        if not later:
            for place in self._places:
                self._check(place)

    @property
    def order(self) -> Order:  # type: ignore[override]
        """As it was found in the last listing; until there is one, that of S3."""
        return self._seen.order

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self.parts())

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The entries, each with the index of the URL it comes from."""
        for part, name, found in self.listed():
            yield part, self.item(-1, name, found) if isinstance(found, Version) else found

    def listed(self) -> Iterator[tuple[int, str, Version | Filtered | Broken]]:
        """See `Source.listed`; a hundred thousand a second."""
        seen = OrderSeen()
        take, why_aside, new = seen.take, self._why_aside, tuple.__new__  # a class would cost three times as much
        for part, place in enumerate(self._places):
            earlier, root = self._places[:part], f"{place.url.root}/"
            for found in self._objects(place):
                if earlier and any(one.covers(place.url.bucket, found.key) for one in earlier):
                    continue
                key, size, modified_ns, etag = found
                name = root + key
                take(part, name)
                if why := why_aside(place, found):
                    yield part, name, Filtered(name, why)
                else:
                    yield part, name, new(Version, (size, modified_ns, etag))
        self._seen = seen

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The object at a URL. Who may not know us is found out here, before workers find it out for each picture."""
        if not self._stores:
            for place in self._places:
                self._stores.of(place.url)
        return Item(name, ordinal=ordinal, version=version, reference=Reference(self._locator, name, version))

    def emptiness(self) -> str:
        """What to say if there are no entries."""
        return f"{' '.join(self.specs[:3])}: there are no objects"

    def _check(self, place: Place) -> None:
        """Refuse what is not there: the store is asked for its first object."""
        if next(islice(self._objects(place), 1), None) is None:
            raise SourceError(f"'{place.url}': there are no objects{' that match' * place.is_glob}")

    def _objects(self, place: Place) -> Iterator[ObjectInfo]:
        """The objects of a place that are wanted, or aside: all that lies in its folder, if it is no glob."""
        store = self._stores.of(place.url)
        try:
            if place.may_be_object and (found := self._single(store, place.url)):
                yield found
            yield from place.listed(store)
        except ObjectStoreError as error:
            raise SourceError(f"cannot be listed: {error}{_hint(error)}") from error

    def _single(self, store: ObjectStore, url: StoreURL) -> ObjectInfo | None:
        """The object that a URL names, if there is one: else it is a folder."""
        try:
            return store.head(url.key)
        except (ObjectNotFoundError, ObjectDeniedError, ObjectNameError):
            return None  # who may not list is denied what is not there, too

    def _why_aside(self, place: Place, found: ObjectInfo) -> str:
        """Why an object is left out; empty where it is a candidate."""
        if self._selects and (why := self.selection.leaves_out(place.below(found.key))):
            return why
        if self.media.has_name(found.key):
            return ""
        if not found.size:
            return _MARKER
        by_name = has_extension(found.key) and not self.selection.include
        return f"not a {self.media.noun}, by its name" if by_name else ""


def _hint(error: ObjectStoreError) -> str:
    if isinstance(error, ObjectDeniedError):
        return "; a public bucket is read with --anonymous"
    return ""


def make_objects(specs: Sequence[str], options: SourceOptions) -> Source:
    """What the registry calls for ``s3:``, ``gs:`` and ``az:``."""
    return ObjectStoreSource(specs, options.urls, selection=options.selection, later=options.later, media=options.media)
