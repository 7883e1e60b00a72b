"""Where the videos of a job lie: a folder for each below one that is marked as the job's, and nothing outside of it.

::

    WORK/.penstock-work                          whose it is
    WORK/.trash/                                 what is being deleted
    WORK/<first 2 of id>/<id>/video.part         bytes so far
                              video.part.json    what they are the beginning of, so that the rest can be asked for
                              meta.json          what is known of the video
                              video              the video: it is there whole, or not at all
                              again.json         that it has been downloaded once already, and was of no use
                              <anything>.tmp     what somebody is about to make

The id is a digest of the video's key (its URL or path): no name of a stranger's is ever part of a path.
"""

from __future__ import annotations

import errno
import json
import os
import re
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from ...durable import DISK, TEMPORARY, create_file, replace_file, shut
from ...errors import ConfigError
from .disk_budget import DiskBudget
from .trash import discard, empty, names, nbytes, opened

MARKER: Final = ".penstock-work"
VIDEO: Final = "video"
PART: Final = "video.part"
NOTE: Final = "video.part.json"
META: Final = "meta.json"
AGAIN: Final = "again.json"

_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without hard links answers."""

_ID: Final = re.compile(r"[0-9a-f]{20}")


def video_id(key: str) -> str:
    """What a video is called on the disk: 20 hex digits of a digest of its key (URL or path)."""
    return blake2b(key.encode(errors="surrogateescape")).hexdigest()[:20]


class Workspace:
    """A folder for the videos of one job. Threads may share it; of one job only one process at a time has it.

    Args:
        path: made if it is not there. A link to a folder is followed here, and none below.
        owner: whose it is: the job's id, or anything that is the same when the job goes on.
        max_disk: bytes of videos that may lie in it at once; None: 20 GB, or a quarter of what is free now.

    Attributes:
        path: absolute, without links.
        budget: who waits for room in it.

    Raises:
        ConfigError: there is something else, or it is of another job.
        OSError: it cannot be made.
    """

    def __init__(self, path: str | Path, owner: str, max_disk: int | None = None) -> None:
        self.path = Path(path).resolve()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _mark(self.path, owner)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.close = weakref.finalize(self, os.close, self._fd)
        self.close.atexit = False
        self.budget = DiskBudget(self.path, max_disk)

    def folder(self, key: str) -> VideoFolder:
        """The folder of a video, which is made when something is put into it."""
        return VideoFolder(self, video_id(key))

    def folders(self) -> Iterator[VideoFolder]:
        """Those that are there, in the order of their ids."""
        for name in names(self._fd):
            with suppress(OSError), opened(self._fd, [name]) as outer:
                for each in names(outer):
                    if _ID.fullmatch(each) and each.startswith(name):
                        yield VideoFolder(self, each)

    def remove(self, *parts: str) -> int:
        """Delete a file or a folder below this one; returns its bytes, 0 where nothing is. No link is followed.

        Raises:
            OSError: it cannot be deleted, or a link leads there.
            ValueError: a part is no name.
        """
        return discard(self._fd, parts)

    def sweep(self) -> int:
        """Delete what a run that was killed has left and nobody can go on with; returns bytes. At a job's start.

        What is in the trash, whatever ends with ``.tmp``, and a beginning of a download without a note, or beside the
        whole.
        """
        freed = empty(self._fd) + sum(self.remove(name) for name in self.names() if _is_unfinished(name))
        return freed + sum(folder.sweep() for folder in self.folders())

    def names(self, *parts: str) -> list[str]:
        """What lies in a folder below this one, sorted; nothing where there is none."""
        with suppress(OSError), opened(self._fd, parts) as folder:
            return names(folder)
        return []

    def size(self, *parts: str) -> int:
        """Bytes of a file or a folder below this one; 0 where nothing is."""
        with suppress(OSError), opened(self._fd, parts[:-1]) as folder:
            return nbytes(folder, parts[-1])
        return 0


@dataclass(frozen=True, slots=True)
class VideoFolder:
    """What lies on the disk of one video.

    Attributes:
        workspace: that it is in.
        id: of the video.
    """

    workspace: Workspace
    id: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.workspace.path / self.id[:2] / self.id

    @property
    def video(self) -> Path:
        """Where the video is once it is whole."""
        return self.path / VIDEO

    def make(self) -> None:
        """Make it, if it is not there.

        Raises:
            OSError: it cannot be made.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """What is in it; nothing where it is not there."""
        return self.workspace.names(self.id[:2], self.id)

    def size(self, name: str | None = None) -> int:
        """Bytes of one thing in it, or of all."""
        parts = (self.id[:2], self.id) if name is None else (self.id[:2], self.id, name)
        return self.workspace.size(*parts)

    def read_meta(self) -> dict[str, Any] | None:
        """What was written of the video; None where that is nothing."""
        return read_json(self.path / META)

    def write_meta(self, meta: dict[str, Any]) -> None:
        """Write down what is known of the video; it is on the medium then.

        Raises:
            OSError: the disk refuses.
        """
        write_json(self.path / META, meta)

    def sweep(self) -> int:
        """Delete what nobody can go on with, if nobody works in it; returns its bytes. See `Workspace.sweep`."""
        found = set(self.names())
        lost = {name for name in found if name.endswith(TEMPORARY)}
        if VIDEO in found or not {PART, NOTE} <= found:
            lost |= {PART, NOTE} & found
        return sum(self.remove(name) for name in sorted(lost))

    def remove(self, name: str) -> int:
        """Delete one thing in it; returns its bytes. What the budget counts is not changed: see `DiskBudget.settle`."""
        return self.workspace.remove(self.id[:2], self.id, name)

    def forget_video(self) -> bool:
        """Have the video downloaded once more: it came whole, and turned out to be of no use.

        Returns:
            Whether that is worth it: False where it has been done before, and then nothing is touched.

        Raises:
            OSError: the disk refuses.
        """
        if AGAIN in self.names():
            return False
        self.remove(VIDEO)
        self.remove(META)
        write_json(self.path / AGAIN, {})
        return True

    def clear(self) -> int:
        """Delete it whole, and let its bytes go from the budget; returns them."""
        freed = self.workspace.remove(self.id[:2], self.id)
        self.workspace.budget.leave(self.id)
        with suppress(OSError):
            self.path.parent.rmdir()  # unless another video's is in it
        return freed


def read_json(path: Path) -> dict[str, Any] | None:
    """An object that was written as JSON; None where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object so that it is there whole or not at all, and on the medium.

    Raises:
        OSError: the disk refuses.
    """
    shut(DISK, replace_file(str(path), [json.dumps(value).encode()]))
    DISK.sync_folder(str(path.parent))


def _mark(path: Path, owner: str) -> None:
    """Make sure that a folder is the owner's."""
    marker = path / MARKER
    names = [each.name for each in path.iterdir()]
    found = read_json(marker)  # after the names: another job that begins just now has marked it before it puts anything
    if found is None and any(not _is_unfinished(name) for name in names):
        raise ConfigError(f"--work {str(path)!r}: a folder with something else in it; name an empty or a new one")
    found = found or _claim(marker, {"format": 1, "owner": owner})
    if found.get("owner") != owner:
        raise ConfigError(f"--work {str(path)!r}: the folder of another job ({found.get('owner')}); name another one")


def _claim(marker: Path, mine: dict[str, Any]) -> dict[str, Any]:
    """Write the marker of a folder that has none, and return what it says: of two who begin at once only one does."""
    temporary = marker.with_name(f"{MARKER}.{uuid4().hex}{TEMPORARY}")
    try:
        if create_file(marker, json.dumps(mine).encode(), temporary=temporary):
            return mine
    except FileNotFoundError:
        pass  # swept by the one who was faster
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_json(marker, mine)
        return mine
    return read_json(marker) or {}


def _is_unfinished(name: str) -> bool:
    """Whether it is a marker that its writer has not given its name."""
    return name.startswith(MARKER) and name.endswith(TEMPORARY)
