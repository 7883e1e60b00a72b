"""Pictures in tar archives: found by one pass over the headers, read by the workers at their offsets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from ....errors import ConfigError, ItemError, ReadError, SourceError
from ....references import Reference, Version
from ....registry import scheme_of
from ..base import Source
from ..entries import Broken, Entry, Filtered, Item, key_of
from ..kinds import SNIFFED_BYTES, has_picture_name, looks_like_picture
from ..options import SourceOptions
from ..paths import anchored, look, path_of_url, reason
from ..shards import check_named, files_named
from .members import Member, members_of
from .place import Sidecar, version_of
from .reader import LOCATOR, TarReader
from .samples import SIDECARS, columns_of, sample_of

SCHEME: Final = "wds"
MARK: Final = "!"
"""Between the path of a tar and the name of a member in it, as of a jar's."""

_REST: Final = "#rest"
"""Ends the name of what cannot be read of a tar; in the order of bytes it comes behind those of its members."""

_COMPRESSED: Final = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz4", ".z")
_MOST_OF_A_SAMPLE: Final = 1000
"""Members that are held until the sample is whole. One with more goes on as another."""


class TarSource(Source):
    """The pictures in tars, in the order of the tars' names, and in each as they lie there.

    A picture is known as ``/path/of.tar!its/name.jpg``; the second one of a name as ``...jpg#2``. Members that follow
    one another and share their name up to the first dot of its last part are a sample, as in WebDataset: its ``json``
    (an object: its fields), ``txt`` and ``cls`` are metadata of its pictures. Nothing is ever written or unpacked:
    names are labels. Memory holds one sample, and 100 bytes for each member of the tar at hand, to tell names that
    repeat.

    What is damaged, or cut short, is one broken entry for the rest of its tar (``/path/of.tar#rest``); what was read
    before stays.

    Args:
        specs: paths of tars, globs, braces; each with ``wds:`` before it or not.
        later: do not look now whether they are there.

    Raises:
        SourceError: there is no such tar, or it is compressed, so that nothing in it can be read at an offset.
    """

    order = "bytes"
    locator = LOCATOR

    def __init__(self, specs: Sequence[str], later: bool = False) -> None:
        self._patterns = [anchored(_pattern(path_of_url(spec))) for spec in specs]
        self.specs = tuple(f"{SCHEME}:{pattern}" for pattern in self._patterns)
        for pattern in self._patterns:
            if pattern.lower().endswith(_COMPRESSED):
                raise SourceError(
                    f"{pattern!r} is compressed, so no picture in it can be read where it lies: unpack the compression"
                    " (gunzip, zstd -d) and give the .tar, which stays a tar"
                )
            if not later:
                check_named(pattern, "tar")

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self.parts())

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The entries, each with the index of the spec it comes from."""
        for part, pattern in enumerate(self._patterns):
            for path in files_named(pattern, MARK):
                for entry in _entries(path):
                    yield part, entry

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The member that was listed so."""
        return _item(name, version, ordinal)

    def name_of(self, entry: Entry) -> str:
        """The path of the tar and the member's name, of any bytes."""
        if isinstance(entry, Item) and entry.reference is not None:
            return entry.reference.ref
        return super().name_of(entry)

    def look_again(self, name: str, why: str) -> Entry:
        """It is broken still: what lies behind the damage is found by another listing."""
        return Broken(key_of(name), ReadError(f"{why} (--update looks again)"))

    def loaded(self, entries: Iterable[Any], max_bytes: int) -> Iterator[Any]:
        """The same entries, pictures with the metadata that lie beside them."""
        del max_bytes
        reader = TarReader()
        for entry in entries:
            if not (isinstance(entry, Item) and entry.reference is not None and entry.reference.locator == LOCATOR):
                yield entry
                continue
            try:
                columns = columns_of(reader, entry.reference)
            except (ItemError, OSError) as error:
                said = error if isinstance(error, ItemError) else ReadError(f"cannot be read: {reason(error)}")
                yield replace(entry, data=said, reference=None)
            else:
                yield replace(entry, metadata={**entry.metadata, **columns}) if columns else entry

    def emptiness(self) -> str:
        """What to say if there are no entries."""
        return f"{' '.join(self.specs)} has no members"


def make_tars(specs: Sequence[str], options: SourceOptions) -> Source:
    """The factory of ``wds:``, and of paths that end in ``.tar``."""
    return TarSource(specs, options.later)


def _pattern(spec: str) -> str:
    found = spec if scheme_of(spec) != SCHEME or os.path.lexists(spec) else spec.partition(":")[2]
    if not found:
        raise ConfigError(f"source: {spec!r}: name a tar, as in {SCHEME}:shards-{{000..009}}.tar")
    return found


def _item(name: str, version: Version, ordinal: int = -1) -> Item:
    return Item(key_of(name), ordinal=ordinal, version=version, reference=Reference(LOCATOR, name, version))


def _entries(path: str) -> Iterator[Entry]:
    """Of one tar."""
    begun = False
    try:
        if problem := look(path).problem:
            raise problem
        with open(path, "rb", opener=_opened) as file:
            tar = _Tar(path, os.fstat(file.fileno()), file.fileno())
            for entry in tar.entries(members_of(file, tar.size)):
                begun = True
                yield entry
    except (OSError, ReadError) as error:
        said = str(error) if isinstance(error, ReadError) else f"cannot be read: {reason(error)}"
        yield Broken(key_of(f"{path}{_REST}" if begun else path), ReadError(f"the tar {said}"))


def _opened(path: str, flags: int) -> int:
    """Non-blocking: a FIFO may have taken the file's place, and opening it would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


class _Tar:
    """Entries of one tar, of its members."""

    def __init__(self, path: str, status: os.stat_result, fd: int) -> None:
        self._path, self._fd = path, fd
        self.size = status.st_size
        self._version = status.st_size, status.st_mtime_ns
        self._met: dict[int, int] = {}

    def entries(self, members: Iterator[Member]) -> Iterator[Entry]:
        """Samples are held until they are whole: metadata may come behind its picture."""
        sample: list[Member] = []
        name = ""
        try:
            for member in members:
                stem = sample_of(member.name)[0]
                if sample and (stem != name or len(sample) == _MOST_OF_A_SAMPLE):
                    yield from self._sample(sample)
                    sample = []
                name = stem
                sample.append(member)
        except ReadError:  # what was found before the damage is good
            yield from self._sample(sample)
            raise
        yield from self._sample(sample)

    def _sample(self, members: Sequence[Member]) -> Iterator[Entry]:
        pictures = {member.offset for member in members if member.kind != "other" and self._is_picture(member)}
        beside = [
            Sidecar(kind, member.offset, member.size)
            for member in members
            if (kind := sample_of(member.name)[1]) in SIDECARS and member.kind == "file"
        ]
        for member in members:
            label = self._label(member.name)
            name = self._path + label
            if member.offset in pictures and member.kind == "file":
                yield _item(name, version_of(member, label, self._path, self._version, beside))
            elif member.offset in pictures:
                yield Broken(key_of(name), ReadError("is stored with holes (sparse), so its data are not in one piece"))
            elif member.kind == "other":
                yield Filtered(key_of(name), "a link or a device in a tar")
            else:
                is_beside = pictures and sample_of(member.name)[1] in SIDECARS
                yield Filtered(key_of(name), "metadata of a picture" if is_beside else "not a picture")

    def _is_picture(self, member: Member) -> bool:
        if has_picture_name(member.name):
            return True
        sniffed = member.kind == "file" and sample_of(member.name)[1] not in SIDECARS
        return sniffed and looks_like_picture(os.pread(self._fd, min(SNIFFED_BYTES, member.size), member.offset))

    def _label(self, name: str) -> str:
        """What a member is called behind the tar's path; names may repeat."""
        label = MARK + name
        digest = hash(label)
        count = self._met[digest] = self._met.get(digest, 0) + 1
        return label if count == 1 else f"{label}#{count}"
