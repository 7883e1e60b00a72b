"""Where a picture lies in a tar, as its version in a listing tells it, and what is beside it there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self
from zlib import crc32

from ....errors import ReadError
from ....references import Version
from .members import Member


class Sidecar(NamedTuple):
    """A member with metadata of the pictures of its sample."""

    kind: str
    offset: int
    size: int


class Place(NamedTuple):
    """Where a member lies. As text: ``13:1536:10240:0a1b2c3d json@2560+33``.

    Attributes:
        path: characters of its name that are the path of the tar; the rest is a mark, and its name there.
        offset: of its data.
        whole: bytes of the tar.
        check: of its header and its name: whether what is there is still what was listed.
        sidecars: of its sample.
    """

    path: int
    offset: int
    whole: int
    check: int
    sidecars: Sequence[Sidecar] = ()

    @classmethod
    def of(cls, ref: str, version: Version) -> Self:
        """Of the member that was listed so.

        Raises:
            ReadError: its version tells no place.
        """
        try:
            numbers, *beside = version.tag.split(" ")
            path, offset, whole, check = numbers.split(":")
            return cls(int(path), int(offset), int(whole), int(check, 16), [_sidecar(text) for text in beside])
        except ValueError:
            raise ReadError(f"{ref!r} cannot be read: {version.tag!r} is no place in a tar") from None

    def __str__(self) -> str:
        beside = "".join(f" {one.kind}@{one.offset}+{one.size}" for one in self.sidecars)
        return f"{self.path}:{self.offset}:{self.whole}:{self.check:08x}{beside}"


def check_of(header: int, label: str) -> int:
    """The checksum of a member's header, carried on over what it is called."""
    return crc32(label.encode("utf-8", "surrogatepass"), header)


def version_of(
    member: Member, label: str, path: str, tar: tuple[int, int], sidecars: Sequence[Sidecar] = ()
) -> Version:
    """What a listing keeps of a member.

    Args:
        member: of the tar.
        label: what it is called behind the tar's path.
        path: of the tar.
        tar: its size in bytes, and the time of its last change in ns.
        sidecars: of its sample.
    """
    size, mtime_ns = tar
    place = Place(len(path), member.offset, size, check_of(member.header, label), sidecars)
    return Version(member.size, mtime_ns, str(place))


def _sidecar(text: str) -> Sidecar:
    kind, _, where = text.partition("@")
    offset, size = where.split("+")
    return Sidecar(kind, int(offset), int(size))
