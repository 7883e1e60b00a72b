"""The entries of one tar, of its members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final

from ....errors import ReadError
from ....references import Version
from ..containers import Container
from ..entries import Broken, Entry, Filtered, Item, key_of
from ..kinds import PICTURES, SNIFFED_BYTES
from .members import Member
from .place import Sidecar, version_of
from .samples import SIDECARS, sample_of

MARK: Final = "!"
"""Between the name of a tar and that of a member in it, as of a jar's."""

_MOST_OF_A_SAMPLE: Final = 1000
_LONGEST_OF_A_SAMPLE: Final = 1 << 20
"""Members, and characters of their names, that are held until the sample is whole. What has more goes on as another."""

SAMPLE_BYTES: Final = 16 << 20
"""What a sample takes in memory, its entries included: names have up to four bytes a character."""


class TarListing:
    """Entries of one tar, of its members.

    Args:
        tar: open.
        file: it, to be read where a name does not tell what is there.
        item: makes a candidate of an ordinal, a name and a version.
    """

    def __init__(self, tar: Container, file: BinaryIO, item: Callable[[int, str, Version], Item]) -> None:
        self._tar, self._file, self._item = tar, file, item
        self._met: dict[int, int] = {}

    def entries(self, members: Iterator[Member]) -> Iterator[Entry]:
        """Samples are held until they are whole: metadata may come behind its picture."""
        sample: list[Member] = []
        name, length = "", 0
        try:
            for member in members:
                stem = sample_of(member.name)[0]
                length += len(member.name)
                if sample and (stem != name or len(sample) == _MOST_OF_A_SAMPLE or length > _LONGEST_OF_A_SAMPLE):
                    yield from self._sample(sample)
                    sample, length = [], len(member.name)
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
            name = self._tar.name + label
            if member.offset in pictures and member.kind == "file":
                version = version_of(member, label, self._tar.name, self._tar.known, beside)
                yield self._item(-1, name, version)
            elif member.offset in pictures:
                yield Broken(key_of(name), ReadError("is stored with holes (sparse), so its data are not in one piece"))
            elif member.kind == "other":
                yield Filtered(key_of(name), "a link or a device in a tar")
            else:
                is_beside = pictures and sample_of(member.name)[1] in SIDECARS
                yield Filtered(key_of(name), "metadata of a picture" if is_beside else "not a picture")

    def _is_picture(self, member: Member) -> bool:
        if PICTURES.has_name(member.name):
            return True
        sniffed = member.kind == "file" and sample_of(member.name)[1] not in SIDECARS
        if not sniffed:
            return False
        self._file.seek(member.offset)
        return PICTURES.looks_like(self._file.read(min(SNIFFED_BYTES, member.size)))

    def _label(self, name: str) -> str:
        """What a member is called behind the tar's path; names may repeat, and be what another was called for that."""
        label = MARK + name
        while (count := self._count(label)) > 1:
            label = f"{label}#{count}"
        return label

    def _count(self, label: str) -> int:
        """How often it has been asked for by now."""
        digest = hash(label)
        count = self._met[digest] = self._met.get(digest, 0) + 1
        return count
