"""What lies in a job folder, under which names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .disk import TEMPORARY

_MANIFEST: Final = "job.json"
_LOCK: Final = "lock"
_NUMBERED: Final = re.compile(r"(journal|snapshot)-([1-9][0-9]{0,17})")


class Layout:
    """The paths of one job folder.

    Args:
        folder: it need not be there.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.manifest = str(Path(folder) / _MANIFEST)
        self.lock = str(Path(folder) / _LOCK)

    def journal(self, number: int) -> str:
        """A journal. The highest number counts."""
        return str(Path(self.folder) / f"journal-{number}")

    def snapshot(self, number: int) -> str:
        """A snapshot. The one that the journal names counts."""
        return str(Path(self.folder) / f"snapshot-{number}")

    def leftovers(self, names: Iterable[str], journal: int, snapshot: int) -> list[str]:
        """Paths of what a writer that died has left: unfinished, replaced, or never adopted."""
        current = {f"journal-{journal}", f"snapshot-{snapshot}"}
        found = (
            name
            for name in names
            if (name.endswith(TEMPORARY) and is_ours(name)) or (_NUMBERED.fullmatch(name) and name not in current)
        )
        return [str(Path(self.folder) / name) for name in found]


def numbers(what: str, names: Iterable[str]) -> list[int]:
    """The numbers of the journals or snapshots among names, in order."""
    found = (_NUMBERED.fullmatch(name) for name in names)
    return sorted(int(match[2]) for match in found if match is not None and match[1] == what)


def is_ours(name: str) -> bool:
    """Whether a job has a file of this name."""
    base = name.removesuffix(TEMPORARY)
    return base in {_MANIFEST, _LOCK} or _NUMBERED.fullmatch(base) is not None


def is_begun(names: Iterable[str]) -> bool:
    """Whether a job lives where these names are."""
    return _MANIFEST in names
