"""Where a data set lies, a folder or a bucket: what publishing asks of it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

STAGING: Final = "_staging/"
"""What no reader looks at: folders that begin with an underline are left out by readers of Parquet data sets."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Something that lies there."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """A part that is complete and that nobody sees: whoever knows this can show it, in any process."""

    name: str
    rows: int
    nbytes: int
    sha256: str
    handle: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the place needs to show it."""


class PartFile(ABC):
    """A file for pyarrow (in a ``pyarrow.PythonFile``) whose bytes nobody sees until `Place.complete`.

    Closing it does nothing: pyarrow closes its files also after an error, and half a part must never show.
    """

    closed = False

    def __init__(self) -> None:
        self._sha256, self._nbytes = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        """Take some bytes."""
        view = memoryview(data).cast("B")
        self._append(view)
        self._sha256.update(view)
        self._nbytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """How many bytes there are."""
        return self._nbytes

    def writable(self) -> bool:
        """Yes."""
        return True

    def flush(self) -> None:  # noqa: B027
        """Nothing: `seal` is what makes it last."""

    def close(self) -> None:  # noqa: B027
        """Nothing; see above."""

    @abstractmethod
    def _append(self, data: memoryview) -> None: ...

    @abstractmethod
    def seal(self, rows: int) -> Sealed:
        """All is written: it outlives this process from here on."""

    @abstractmethod
    def abandon(self) -> None:
        """It is not wanted any more."""


class Hold(Protocol):
    """One process has what a job has left in a place."""

    def check(self) -> None:
        """See that nobody has taken it over.

        Raises:
            SinkError: somebody has.
        """
        ...

    def close(self) -> None:
        """Let go. Idempotent."""
        ...


class Place(ABC):
    """Names with bytes, below one folder or prefix. Usable from several threads.

    Every method raises SinkError where the place refuses, and SinkUnavailableError where it does not answer.
    """

    @property
    @abstractmethod
    def uri(self) -> str:
        """As it can be named from anywhere: ``/data/rows``, ``s3://bucket/rows``. Without secrets."""

    @property
    def local_path(self) -> Path | None:
        """The folder on this machine, as it was named."""
        return None

    # -- bytes --------------------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """What has this name; None: nothing has."""

    @abstractmethod
    def open(self, name: str) -> Any:
        """The same for pyarrow to read: a path, or an open file.

        Raises:
            SinkError: there is nothing.
        """

    @abstractmethod
    def put(self, name: str, data: Any) -> None:
        """Give these bytes a name: whole, or not at all; they last when it returns."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """`put`, where nothing has the name yet: of several who try, one succeeds. Says whether it did."""

    @abstractmethod
    def replace(self, name: str, data: bytes, was: bytes | None) -> bool:
        """`put` in the place of just these bytes, or of nothing. Says whether that was what was there."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Take these away; what is not there is no error."""

    def delete_if(self, name: str, was: bytes) -> bool:
        """Take it away where it is just these bytes. Says whether it was."""
        if self.read(name) != was:
            return False
        self.delete([name])
        return True

    @abstractmethod
    def stored(self, under: str = "") -> list[Stored]:
        """What lies below the folder ``under``, which ends with a slash, or everywhere; in order of names."""

    # -- parts: in the staging folder, unless a place has something better --------------------------------------------

    @abstractmethod
    def begin(self, job: str, name: str) -> PartFile:
        """A part of a job."""

    @abstractmethod
    def complete(self, job: str, part: Sealed) -> None:
        """Show a sealed part under its name. Repeatable; shows no bytes but its own.

        Raises:
            SinkError: it is not there any more.
        """

    def forget(self, job: str, parts: Sequence[Sealed]) -> None:
        """Take away sealed parts that are not shown yet."""
        self.delete(staging(job, part.name) for part in parts)

    def unfinished(self) -> Mapping[str, int]:
        """For each job the number of parts that were begun there and not shown, as far as the place knows."""
        names = (each.name.split("/") for each in self.stored(STAGING))
        return Counter(name[1] for name in names if len(name) == 3 and name[2].startswith("part-"))

    @abstractmethod
    def sweep(self, job: str) -> None:
        """Take away every part of a job that is not shown, sealed or not, and all it has below `STAGING`."""

    # -- who has it ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def hold(self, job: str) -> Hold:
        """Have what this job has left here, as the job itself.

        Raises:
            SinkError: another process has it.
        """

    @abstractmethod
    def take(self, job: str) -> Hold | None:
        """Have what a dead job has left here; None where it lives."""

    @abstractmethod
    def is_live(self, job: str) -> bool:
        """Whether a process has what this job has left here. Changes nothing."""

    def tidy(self) -> None:  # noqa: B027  (most places have nothing half done)
        """Take away what dead writers left half done, where no job is live."""


def staging(job: str, name: str = "") -> str:
    """Where a job keeps what is not shown yet."""
    return f"{STAGING}{job}/{name}"
