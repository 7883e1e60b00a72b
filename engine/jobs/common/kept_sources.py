"""What a job was given as its source, where it is too much for its manifest. See ``docs/journal.md``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from ...journal import Disk
from ...journal.disk import reading, replace_file, shut

_NAME: Final = "sources"
_PIECE: Final = 4096


def keep_sources(folder: str, specs: Iterable[str]) -> None:
    """Write them down, as they can be named from any folder.

    Raises:
        JournalDiskError: the disk refused.
    """
    disk = Disk()
    shut(disk, replace_file(disk, str(Path(folder) / _NAME), _pieces(iter(specs))))


def kept_sources(folder: str) -> list[str]:
    """What was written down.

    Raises:
        JournalDiskError: it cannot be read.
    """
    path = Path(folder) / _NAME
    with reading(str(path)), path.open("rb") as file:
        return [json.loads(line) for line in file]


def _pieces(specs: Iterator[str]) -> Iterator[bytes]:
    while some := list(islice(specs, _PIECE)):
        yield "".join(f"{json.dumps(spec)}\n" for spec in some).encode()
