"""Folders and globs as one thing: a base folder and a pattern for what lies below it.

A folder is a pattern without parts (everything matches); ``photos/**/*.jpg`` is the base ``photos`` and the parts
``**``, ``*.jpg``. What a pattern matches and is a folder is walked to its end, as when a shell expands the pattern.
The same matcher walks, and tells later roots what has been read already.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Self

from ...errors import ItemError, ReadError

_MAGIC: Final = frozenset("*?[")

_States = frozenset[int]
"""How many parts of the pattern the path so far may have used up."""

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True)
class Found:
    """Something on disk.

    Attributes:
        path: absolute.
        problem: why it cannot be read at all; None for a regular file.
        linked_folder: it is a link to a folder, which is not followed.
    """

    path: str
    problem: ItemError | None = None
    linked_folder: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """A file, or a folder and what is wanted below it.

    Attributes:
        base: absolute path, as the user wrote it; keys begin with it.
        real: the same with links to folders resolved; by it two roots are seen to overlap.
        parts: the pattern, one part per level; empty for all.
        folder: False for a single file (or whatever else lies there).
    """

    base: str
    real: str
    parts: tuple[str, ...] = ()
    folder: bool = True

    @classmethod
    def of(cls, path: str) -> Self:
        """The root for what lies at a path. A name that exists is no pattern, whatever signs it holds."""
        whole = _absolute(path)
        if Path(whole).is_dir():
            return cls(whole, os.path.realpath(whole))
        parent, name = os.path.split(whole)
        return cls(whole, os.path.join(os.path.realpath(parent), name), folder=False)

    @classmethod
    def of_pattern(cls, pattern: str) -> Self:
        """The root for a glob: ``*``, ``?``, ``[...]`` within a name, ``**`` for any number of folders."""
        base, parts = Path.cwd(), Path(pattern).parts
        while parts and (not is_pattern(parts[0]) or (base / parts[0]).exists()):
            base, parts = base / parts[0], parts[1:]
        whole = _absolute(str(base))
        return cls(whole, os.path.realpath(whole), parts)

    def covers(self, real: str) -> bool:
        """Whether this root yields (or walks) what lies at this real path."""
        if real == self.real:
            return len(self.parts) in self._begin()
        below = real.removeprefix(self.real.rstrip("/") + "/")
        if below == real or not self.folder:
            return False
        states = self._begin()
        for name in below.split("/"):
            if len(self.parts) in states:
                return True
            states = self._step(states, name)
        return len(self.parts) in states

    def walk(self, earlier: Sequence[Self] = ()) -> Iterator[Found]:
        """What the root holds, folder by folder, each in the order of its names' bytes.

        Constant memory but for the names of one folder per level. Links to folders are not followed.

        Args:
            earlier: roots whose share is left out.
        """
        if any(root.covers(self.real) for root in earlier):
            return
        if not self.folder:
            yield look(self.base)
            return
        folders = [self._entries(self.base, self.real, self._begin(), earlier)]
        while folders:
            found = next(folders[-1], None)
            if found is None:
                folders.pop()
            elif isinstance(found, Found):
                yield found
            else:
                folders.append(self._entries(*found, earlier))

    def _entries(
        self, path: str, real: str, states: _States, earlier: Sequence[Self]
    ) -> Iterator[Found | tuple[str, str, _States]]:
        """The files of a folder, and its sub-folders as they are to be walked."""
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Found(path, ReadError(f"the folder cannot be listed: {error.strerror}"))
            return
        for entry in entries:
            after = self._step(states, entry.name)
            below = os.path.join(real, entry.name)
            if not after or any(root.covers(below) for root in earlier):
                continue
            if _is(entry, os.DirEntry.is_dir):
                yield entry.path, below, after
            elif len(self.parts) in after:
                yield Found(entry.path) if _is(entry, os.DirEntry.is_file) else look(entry.path)

    def _begin(self) -> _States:
        return self._skip({0})

    def _skip(self, states: set[int]) -> _States:
        """``**`` may stand for no folder at all."""
        for state in range(len(self.parts)):
            if state in states and self.parts[state] == "**":
                states.add(state + 1)
        return frozenset(states)

    def _step(self, states: _States, name: str) -> _States:
        """Where the pattern may be after one more name."""
        if not self.parts:
            return states
        after: set[int] = set()
        for state in states:
            if state == len(self.parts):
                after.add(state)  # below what matched, everything is wanted
            elif self.parts[state] == "**":
                if not name.startswith("."):
                    after.add(state)
            elif _matches(name, self.parts[state]):
                after.add(state + 1)
        return self._skip(after)


def _absolute(path: str) -> str:
    """The path from the root on, as the user knows it: links stay, unless ``..`` makes their target matter."""
    return os.path.realpath(path) if ".." in Path(path).parts else str(Path(path).absolute())


def is_pattern(text: str) -> bool:
    """Whether it holds a sign of a glob."""
    return not _MAGIC.isdisjoint(text)


def _is(entry: os.DirEntry[str], kind: Callable[..., bool]) -> bool:
    try:
        return kind(entry, follow_symlinks=False)
    except OSError:  # the listing does not tell kinds on every file system, and asking may fail
        return False


def _matches(name: str, part: str) -> bool:
    """As a shell does: hidden names only where the pattern says the dot."""
    return (part.startswith(".") or not name.startswith(".")) and fnmatchcase(name, part)


def look(path: str) -> Found:
    """What lies at a path, links followed. Opens nothing: opening a FIFO waits, opening a device may do things."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Found(path, ReadError(f"cannot be read: {reason}"))
    if stat.S_ISREG(mode):
        return Found(path)
    if stat.S_ISDIR(mode):
        return Found(path, linked_folder=True)
    return Found(path, ReadError(f"is {_KINDS.get(stat.S_IFMT(mode), 'something special')}, not a regular file"))
