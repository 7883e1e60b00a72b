"""Where a picture lies in a tar, as its version in a listing tells it, and what is beside it there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self
from zlib import crc32

from ....errors import ReadError
from ....references import Version
from ..containers import Known
from .members import Member


class Sidecar(NamedTuple):
    """A member with metadata of the pictures of its sample."""

    kind: str
    offset: int
    size: int


class Place(NamedTuple):
    """Where a member lies. As text: ``13:1536:0a1b2c3d:10240.1764288000000000000. json@2560+33``.

    Attributes:
        name: characters of its name that are the name of the tar; the rest is a mark, and its name there.
        offset: of its data.
        check: of its header and its name: whether what is there is still what was listed.
        tar: what was known of it.
        sidecars: of its sample.
    """

    name: int
    offset: int
    check: int
    tar: Known
    sidecars: Sequence[Sidecar] = ()

    @classmethod
    def of(cls, ref: str, version: Version) -> Self:
        """Of the member that was listed so.

        Raises:
            ReadError: its version tells no place.
        """
        try:
            numbers, *beside = version.tag.split(" ")
            name, offset, check, tar = numbers.split(":")
            return cls(int(name), int(offset), int(check, 16), Known.parse(tar), [_sidecar(text) for text in beside])
        except ValueError:
            raise ReadError(f"{ref!r} cannot be read: {version.tag!r} is no place in a tar") from None

    def __str__(self) -> str:
        beside = "".join(f" {one.kind}@{one.offset}+{one.size}" for one in self.sidecars)
        return f"{self.name}:{self.offset}:{self.check:08x}:{self.tar}{beside}"


def check_of(header: int, label: str) -> int:
    """The checksum of a member's header, carried on over what it is called."""
    return crc32(label.encode("utf-8", "surrogatepass"), header)


def version_of(member: Member, label: str, tar: str, known: Known, sidecars: Sequence[Sidecar] = ()) -> Version:
    """What a listing keeps of a member.

    Args:
        member: of the tar.
        label: what it is called behind the tar's name.
        tar: its name.
        known: of the tar.
        sidecars: of its sample.
    """
    place = Place(len(tar), member.offset, check_of(member.header, label), known, sidecars)
    return Version(member.size, tag=str(place))


def _sidecar(text: str) -> Sidecar:
    kind, _, where = text.partition("@")
    offset, size = where.split("+")
    return Sidecar(kind, int(offset), int(size))
