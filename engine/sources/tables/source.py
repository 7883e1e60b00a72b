"""Pictures in the rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final

from ....errors import ConfigError, ItemError, ReadError, SourceError
from ....references import Reference, Version
from ..base import Source, SourceMemory
from ..containers import may_pass, settled
from ..entries import Broken, Entry, Item, key_of
from ..options import Factory, SourceOptions
from ..url_options import UrlOptions
from .base import BATCH_BYTES, TableFile
from .columns import Columns, key_in
from .formats import FORMATS
from .reader import MARK, RowPlace, TableReader, locator_of, said_of
from .seen import Seen
from .spec import TableSpec

_KEYS_AT_ONCE: Final = 8192

_LOOKED_AT: Final = 16
"""Tables whose footers are read to know what memory they take, where they have not been listed: each is a request."""


class TableSource(Source):
    """The rows of tables, file by file in the order of their names, in each as they lie there.

    A row is known by its key, or as ``/path/of.parquet#000000012``. Listing reads the keys alone, or where there
    are none nothing but the files' footers. Pictures and metadata are read by `loaded`, in order and in this process: a
    worker that opened the tables itself would read a whole group of rows for the few it has been given of it.

    A row with the key of another before it is a broken entry; eight bytes of memory for each row tell.

    A file that cannot be read, or whose columns are not those asked for, is one broken entry for all of it.

    Args:
        specs: of one format, with the same columns.
        urls: how stores are spoken to, and URLs are read that rows name.
        later: do not look at the tables now.

    Raises:
        SourceError: there is no such table, or its first file has not the columns.
        ConfigError: the specs ask for different columns, or the library is not installed.
    """

    order = "bytes"
    in_memory = True

    def __init__(self, specs: Sequence[TableSpec], urls: UrlOptions | None = None, later: bool = False) -> None:
        first = self._first = specs[0]
        for spec in specs:
            if spec.options != first.options:
                raise ConfigError(
                    f"source: {str(first)!r} and {str(spec)!r} ask for different columns: say the same of all"
                )
        self._places = [spec.place for spec in specs]
        self.specs = tuple(map(str, specs))
        self._urls = urls or UrlOptions()
        self._format = FORMATS[first.scheme](self._urls.stores)
        self.locator = self._locator = locator_of(first, self._urls)
        self._pages = set[int | None]()
        if not later:
            self._check()

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self.parts())

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The entries, each with the index of the spec it comes from."""
        seen = Seen()
        self._pages.clear()
        for part, place in enumerate(self._places):
            for name in self._format.names(place, MARK):
                for entry in self._entries(name, seen):
                    yield part, entry

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The row that was listed so."""
        return Item(name, ordinal=ordinal, version=version, reference=Reference(self._locator, name, version))

    def look_again(self, name: str, why: str) -> Entry:
        """It is broken still: what is in a file that could not be read is found by another listing."""
        return Broken(key_of(name), ReadError(f"{why} (--update looks again)"))

    def loaded(self, entries: Iterable[Any], max_bytes: int) -> Iterator[Any]:
        """The same entries; rows with their pictures and metadata."""
        with closing(TableReader(self._first, self._urls.stores)) as reader:
            for entry in entries:
                reference = entry.reference if isinstance(entry, Item) else None
                if reference is None or reference.locator != self.locator:
                    yield entry
                    continue
                try:
                    found = reader.row(reference.ref, reference.version, max_bytes)
                except ItemError as error:
                    yield replace(entry, data=settled(error), reference=None)
                    continue
                metadata = {**entry.metadata, **found.metadata}
                elsewhere = None if found.url is None else Reference(self._urls.locator, found.url)
                yield replace(entry, data=found.data, path=found.path, metadata=metadata, reference=elsewhere)

    def memory(self, max_bytes: int) -> SourceMemory:
        """By what the footers say: of all tables that were listed by this source, else of the first ones.

        There are, of the largest page, what it was compressed or a dictionary's copy of it, the page itself, and a
        batch of rows, which grows by doubling (measured: 2.0 to 4.0 of a column whose group is one page).
        """
        pages, others = self._pages, False
        if not pages:
            try:
                names = [name for place in self._places for name in self._format.names(place, MARK)]
            except SourceError:  # a job that goes on with its listing says so of each row
                names = []
            pages, others = {*map(self._page_of, names[:_LOOKED_AT])}, len(names) > _LOOKED_AT
        has_metadata = bool(self._first.columns)
        if None in pages:
            return SourceMemory(0, has_metadata, (self._format.unit,))
        most = max(filter(None, pages), default=0)
        nbytes = 2 * most + 2 * min(most, max(BATCH_BYTES, max_bytes))
        return SourceMemory(nbytes, has_metadata, (f"tables behind the first {_LOOKED_AT}",) if others else ())

    def emptiness(self) -> str:
        """What to say if there are no entries."""
        return f"{' '.join(self.specs)} has no rows"

    def _page_of(self, name: str) -> int | None:
        """See `TableFile.largest_page`; 0 of a table that cannot be read, of which whoever reads it says more."""
        try:
            with closing(self._format.open(name)) as file:
                return file.largest_page(Columns.of(self._first, file.schema).all)
        except Exception:  # noqa: BLE001  (whatever a library says of a file)
            return 0

    def _check(self) -> None:
        for place in self._places:
            self._format.check(place)
        for name in (name for place in self._places for name in self._format.names(place, MARK)):
            try:
                with closing(self._format.open(name)) as file:
                    Columns.of(self._first, file.schema)
            except Exception as error:
                raise SourceError(f"{name!r}: {said_of(error)}") from error
            return

    def _entries(self, name: str, seen: Seen) -> Iterator[Entry]:
        """Of one file."""
        try:
            with closing(self._format.open(name)) as file:
                columns = Columns.of(self._first, file.schema)
                self._pages.add(file.largest_page(columns.all))
                places = (RowPlace(row, file.token, name) for row in range(sum(file.groups)))
                if columns.key:
                    yield from self._keyed(places, _values(file, columns.key), seen)
                else:
                    yield from (self.item(-1, place.key, Version(tag=str(place))) for place in places)
        except Exception as error:  # whatever a library says of a file
            if may_pass(error):
                raise SourceError(f"{name!r} cannot be listed: {error}") from error
            yield Broken(key_of(name), ReadError(f"the table {said_of(error)}"))

    def _keyed(self, places: Iterator[RowPlace], batches: Iterable[Sequence[Any]], seen: Seen) -> Iterator[Entry]:
        """Rows with keys. One whose key was met before is broken: its picture would be written over the other's row."""
        for values in batches:
            keys = [*map(_key, values)]
            repeated = seen.take([key if isinstance(key, str) else "" for key in keys])
            for place, key, is_again in zip(islice(places, len(keys)), keys, repeated, strict=True):
                if isinstance(key, ReadError):
                    yield Broken(place.key, key)
                elif is_again:
                    yield Broken(place.key, ReadError(f"its key {key!r:.100} is that of a row before"))
                else:
                    yield self.item(-1, key, Version(tag=str(place)))


def _key(value: Any) -> str | ReadError:
    try:
        return key_in(value)
    except ReadError as error:
        return error


def _values(file: TableFile, column: str) -> Iterator[Sequence[Any]]:
    for group in range(len(file.groups)):
        for batch in file.batches(group, [column], _KEYS_AT_ONCE):
            yield batch.column(column).to_pylist()


def _make(scheme: str, specs: Sequence[str], options: SourceOptions) -> Source:
    return TableSource([TableSpec.parse(spec, scheme) for spec in specs], options.urls, options.later)


make_arrow: Factory = partial(_make, "arrow")
make_lance: Factory = partial(_make, "lance")
make_parquet: Factory = partial(_make, "parquet")
"""The factories of the schemes, and of names that end so."""
