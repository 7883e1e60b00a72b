"""Folders and globs as one thing: a base folder and a pattern for what lies below it.

A folder is a pattern without parts (everything matches); ``photos/**/*.jpg`` is the base ``photos`` and the parts
``**``, ``*.jpg``. What a pattern matches and is a folder is walked to its end, as when a shell expands the pattern.
The same matcher walks, and tells later roots what has been read already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple, Self

from ...errors import ReadError
from .earlier import Earlier
from .paths import Found, absolute, look, real_path, reason
from .selection import ALL, Selection

_MAGIC: Final = frozenset("*?[")
_LINK: Final = "link to a folder: --follow-links follows it"
_READ_ANYWAY: Final = "link to a folder that is read where it lies"

_States = frozenset[int]
"""How many parts of the pattern the path so far may have used up."""

_Trail = tuple[tuple["Root", str], ...]
"""Roots whose walk has led to a link to a folder, each with the real path of the folder in which the next link lies."""


class _Folder(NamedTuple):
    """A folder to be read: its path, its real path, where the pattern is, and its path below the root with a slash."""

    path: str
    real: str
    states: _States
    below: str


@dataclass(frozen=True, slots=True)
class Root:
    """A folder, and what is wanted below it.

    Attributes:
        base: absolute path, as the user wrote it; keys begin with it.
        real: the same with links to folders resolved; by it two roots are seen to overlap.
        parts: the pattern, one part per level; empty for all.
        begun: where the pattern is at the base, if that is a link which a walk has come to.
        below: path of the base, with a slash, below the root that the user named; likewise.
        selection: what is wanted of it besides.
    """

    base: str
    real: str
    parts: tuple[str, ...] = ()
    begun: _States = frozenset({0})
    below: str = ""
    selection: Selection = ALL

    @classmethod
    def of(cls, path: str, selection: Selection = ALL) -> Self:
        """The root for an absolute path of a folder. A name that exists is no pattern, whatever signs it holds."""
        return cls(path, real_path(path), selection=selection)

    @classmethod
    def of_pattern(cls, pattern: str, selection: Selection = ALL) -> Self:
        """The root for a glob: ``*``, ``?``, ``[...]`` within a name, ``**`` for any number of folders.

        Raises:
            OSError: it is relative and the current folder is gone.
        """
        base, parts = Path.cwd(), Path(pattern).parts
        while parts and (not is_pattern(parts[0]) or os.path.exists(base / parts[0])):  # noqa: PTH110  (Path's raises)
            base, parts = base / parts[0], parts[1:]
        root = absolute(str(base))
        return cls(root, real_path(root), parts, selection=selection)

    def covers(self, real: str) -> bool:
        """Whether this root yields (or walks) what lies at this real path."""
        return any(len(self.parts) in states for states in self._states_along(real)) and not self.selection.leaves_out(
            self.below + self._inside(real)
        )

    def enters(self, real: str) -> bool:
        """Whether this root looks into a folder of this real path, if there is one."""
        below = self.below + self._inside(real)
        return all(self._states_along(real)) and not self.selection.leaves_out_folder(below)

    def walk(self, earlier: Earlier, trail: _Trail = ()) -> Iterator[Found]:
        """What the root holds, folder by folder, each in the order of its names' bytes.

        Constant memory but for the names of one folder per level.

        Args:
            earlier: what is left out, as it has been read. Links to folders that have been walked join it.
            trail: how links to folders have led here.
        """
        if earlier.covers(self.real):
            return
        folders = [self._entries(_Folder(self.base, self.real, self._begin(), self.below), earlier, trail)]
        while folders:
            found = next(folders[-1], None)
            if found is None:
                folders.pop()
            elif isinstance(found, Found):
                yield found
            elif isinstance(found, _Folder):
                folders.append(self._entries(found, earlier, trail))
            else:
                root, real = found
                yield from root.walk(earlier, (*trail, (self, real)))
                earlier.add(root)

    def _entries(
        self, folder: _Folder, earlier: Earlier, trail: _Trail
    ) -> Iterator[Found | _Folder | tuple[Root, str]]:
        """The files of a folder, its sub-folders as they are to be walked, and roots for links to follow."""
        try:
            with os.scandir(folder.path) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except (OSError, ValueError) as error:
            yield Found(folder.path, ReadError(f"the folder cannot be listed: {reason(error)}"))
            return
        is_read = earlier.within(folder.real)
        for entry in entries:
            after = self._step(folder.states, entry.name)
            real = os.path.join(folder.real, entry.name)
            if not after or is_read(real) or any(root.covers(real) for root, _ in trail):
                continue
            below = folder.below + entry.name
            if _is(entry, os.DirEntry.is_dir):
                aside = self.selection.leaves_out_folder(below)
                yield Found(entry.path, aside=aside) if aside else _Folder(entry.path, real, after, below + "/")
            elif _is(entry, os.DirEntry.is_file):
                if len(self.parts) in after:
                    yield Found(entry.path, aside=self.selection.leaves_out(below))
            else:
                found = look(entry.path)
                if found.folder and self.selection.follow_links:
                    yield self._followed(_Folder(entry.path, folder.real, after, below), earlier, trail)
                elif len(self.parts) in after:
                    yield found._replace(aside=_LINK if found.folder else self.selection.leaves_out(below))

    def _followed(self, link: _Folder, earlier: Earlier, trail: _Trail) -> Found | tuple[Root, str]:
        """A link to a folder as a root of its own, and where it lies; or why it is not followed."""
        aside = self.selection.leaves_out_folder(link.below)
        root = Root(link.path, real_path(link.path), self.parts, link.states, link.below + "/", self.selection)
        if aside or root._is_read(earlier, (*trail, (self, link.real))):
            return Found(link.path, folder=True, aside=aside or _READ_ANYWAY)
        return root, link.real

    def _is_read(self, earlier: Earlier, trail: _Trail) -> bool:
        """Whether a link's target has been read, will be, or leads back to where it lies."""
        inside = self.real.rstrip("/") + "/"
        return earlier.covers(self.real) or any(
            root.enters(self.real) or (real + "/").startswith(inside) for root, real in trail
        )

    def _states_along(self, real: str) -> Iterator[_States]:
        """Where the pattern is at the base and at each name from there to a real path; no place at all outside."""
        below = self._inside(real)
        if below == real:
            yield frozenset()
            return
        states = self._begin()
        yield states
        for name in below.split("/") if below else ():
            states = self._step(states, name)
            yield states

    def _inside(self, real: str) -> str:
        """The path from here to a real path: empty if it is this, all of it if it lies elsewhere."""
        return "" if real == self.real else real.removeprefix(self.real.rstrip("/") + "/")

    def _begin(self) -> _States:
        return self._skip(set(self.begun))

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
