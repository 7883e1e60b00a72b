"""What a source has read already, so that nothing is read twice: asked for each path, and answered at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, Protocol

from .paths import real_path

_PARENTS: Final = 1 << 15
"""Folders whose real paths are remembered: a shuffled list comes back to them."""


class Walked(Protocol):
    """A root, as far as this module asks: where it lies, and what its walk has led to."""

    @property
    def real(self) -> str: ...

    def covers(self, real: str) -> bool:
        """Whether its walk led to what lies at this real path."""
        ...


class Earlier:
    """The files and roots that came before, by their real paths.

    Of a file it holds one text at most (none where the path that was given is the real one) and its place in a set:
    33 to 67 bytes. Roots are found by the ancestors of the path that is asked for, however many there are.
    """

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._roots: dict[str, list[Walked]] = {}
        self._real = lru_cache(_PARENTS)(real_path)

    def take(self, path: str) -> bool:
        """Whether a file is new. From now on it is not.

        Args:
            path: absolute.
        """
        parent, _, name = path.rpartition("/")
        real = self._real(parent or "/")
        if real != parent:
            path = os.path.join(real, name)
        if path in self._files or (self._roots and self.covers(path)):
            return False
        self._files.add(path)
        return True

    def add(self, root: Walked) -> None:
        """A root has been walked."""
        self._roots.setdefault(root.real, []).append(root)

    def covers(self, real: str) -> bool:
        """Whether what lies at this real path was read, or walked."""
        return real in self._files or any(root.covers(real) for root in self._at_or_above(real))

    def within(self, folder: str) -> Callable[[str], bool]:
        """`covers`, for the real paths of what lies directly in a folder."""
        above = list(self._at_or_above(folder))
        if not above and not self._roots:
            return self._files.__contains__

        def covers(real: str) -> bool:
            return real in self._files or any(root.covers(real) for root in (*above, *self._roots.get(real, ())))

        return covers

    def _at_or_above(self, real: str) -> Iterator[Walked]:
        while self._roots:
            yield from self._roots.get(real, ())
            if real in ("/", ""):
                return
            real = real.rpartition("/")[0] or "/"
