"""What is said of a data set: the manifest that makes it complete, and the claim of who is about to write that."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import uuid4

from ...errors import SinkError
from .place import Place, Sealed, staging

MANIFEST, EMPTY, CLAIM = "_SUCCESS.json", "_SUCCESS", "_publishing.json"
"""The truth; an empty file that other tools look for; who is writing the two."""

ABOUT: Final = "about.json"

MANIFEST_FORMAT, CLAIM_FORMAT = "penstock.success/1", "penstock.publishing/1"


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A part of a complete data set."""

    name: str
    rows: int
    bytes: int
    sha256: str
    first: int
    """The least ordinal in it."""
    last: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete data set: these parts, and nothing else that lies there."""

    job: str
    dimension: int
    recipe: str
    """What its vectors are made by."""
    schema: Mapping[str, str]
    """Column -> type, as Arrow names it."""
    fields: Mapping[str, str]
    """Typed columns of the user's, as one declares them."""
    parts: Sequence[ShownPart]
    publication: str = field(default_factory=lambda: uuid4().hex)
    """Another one each time that the data set is published."""
    created: str = field(default_factory=now)

    @property
    def rows(self) -> int:
        """In all parts."""
        return sum(part.rows for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """JSON values, with what others want to know, too."""
        total = {"rows": self.rows, "bytes": sum(part.bytes for part in self.parts)}
        said = {"format": MANIFEST_FORMAT, **total, "fingerprints": _told(self.recipe), **asdict(self)}
        return {**said, "parts": [asdict(part) for part in self.parts]}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Manifest:
        """See `to_json`."""
        wanted: dict[str, Any] = {name: said[name] for name in cls.__slots__}
        wanted["parts"] = [ShownPart(**part) for part in said["parts"]]
        return cls(**wanted)

    def to_bytes(self) -> bytes:
        """As it lies there: the same for the same manifest."""
        return json.dumps(self.to_json(), indent=1).encode()


@dataclass(frozen=True, slots=True)
class Claim:
    """A publication that has begun: all that is needed to finish it, or to undo it, without the job that began it."""

    manifest: Manifest
    """What it will be."""
    sealed: Sequence[Sealed]
    """Parts to show."""
    was: str | None
    """The publication that it takes the place of."""
    after: Sequence[str]
    """What goes at the end: parts that are replaced, and rows that have come into parts."""
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    created: str = field(default_factory=now)

    @property
    def job(self) -> str:
        """Whose it is."""
        return self.manifest.job

    def to_bytes(self) -> bytes:
        """As it lies there."""
        said = {
            "format": CLAIM_FORMAT,
            "job": self.job,
            **{name: getattr(self, name) for name in ("host", "pid", "created", "was")},
            "manifest": self.manifest.to_json(),
            "sealed": [asdict(part) for part in self.sealed],
            "after": list(self.after),
        }
        return json.dumps(said, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Claim:
        """See `to_bytes`."""
        said: dict[str, Any] = json.loads(data)
        wanted: dict[str, Any] = {name: said[name] for name in cls.__slots__}
        wanted["manifest"] = Manifest.from_json(said["manifest"])
        wanted["sealed"] = [Sealed(**part) for part in said["sealed"]]
        return cls(**wanted)


@dataclass(frozen=True, slots=True)
class About:
    """A job that has begun to write: kept in its staging folder until it has published."""

    keeps_books: bool
    """Whether it can go on after its death: then its rows are worth keeping."""
    replaces: str | None
    """The publication that it is to take the place of."""
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    since: str = field(default_factory=now)

    @classmethod
    def of(cls, place: Place, job: str) -> About | None:
        """What is said of a job; None where nothing is."""
        data = place.read(staging(job, ABOUT))
        return None if data is None else cls(**json.loads(data))

    def keep(self, place: Place, job: str) -> None:
        """Say it."""
        place.put(staging(job, ABOUT), json.dumps(asdict(self)).encode())


def _told(recipe: str) -> dict[str, Any]:
    """A recipe for people: that of a job is JSON."""
    try:
        told: Any = json.loads(recipe)
    except ValueError:
        return {}
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def manifest_in(place: Place) -> Manifest | None:
    """That of a place; None where no complete data set is.

    Raises:
        SinkError: it cannot be read.
    """
    return parsed(place, place.read(MANIFEST))


def parsed(place: Place, data: bytes | None) -> Manifest | None:
    """What was read there as the manifest.

    Raises:
        SinkError: it is none.
    """
    if data is None:
        return None
    try:
        said = json.loads(data)
        if said["format"] != MANIFEST_FORMAT:
            raise ValueError(f"its format is {said['format']!r}, this version of penstock reads {MANIFEST_FORMAT}")
        return Manifest.from_json(said)
    except (ValueError, TypeError, KeyError) as error:
        raise SinkError(f"{place.uri}/{MANIFEST} cannot be read: {type(error).__name__}: {error}") from error


def damaged_parts(place: Place) -> list[str]:
    """The parts of a data set that are not what its manifest says: gone, cut, or with another byte. Reads all of them.

    Raises:
        SinkError: there is no data set, or it cannot be read.
    """
    manifest = manifest_in(place)
    if manifest is None:
        raise SinkError(f"{place.uri}: holds no complete data set")
    return [part.name for part in manifest.parts if _sha256(place, part.name) != part.sha256]


def _sha256(place: Place, name: str) -> str:
    data = place.read(name)
    return "" if data is None else hashlib.sha256(data).hexdigest()


def claim_in(place: Place) -> Claim | None:
    """That of a place; None where nobody publishes.

    Raises:
        SinkError: it cannot be read.
    """
    data = place.read(CLAIM)
    try:
        return None if data is None else Claim.from_bytes(data)
    except (ValueError, TypeError, KeyError) as error:
        raise SinkError(f"{place.uri}/{CLAIM} cannot be read: {type(error).__name__}: {error}") from error
