"""Pictures on disk: folders, files, globs and lists of paths, in a fixed order.

In constant memory, but for the names of one folder (about 270 bytes each while it is listed) and a place in a set for
each file that was named on its own (see ``Earlier``).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import BinaryIO

from ...errors import ReadError, SourceError
from ...references import Reference, Version
from .base import Source
from .earlier import Earlier
from .entries import Broken, Entry, Filtered, Item, key_of, path_of
from .kinds import PICTURES, Media, read_head
from .lists import broken_line, open_list, read_paths
from .paths import FILE_URL, Found, anchored, file_version, is_url, look, look_for, path_of_url, reason
from .selection import ALL, Selection
from .specs import STDIN, as_pattern, check, emptiness, is_list, list_of, matches
from .url_options import UrlOptions
from .walk import Root


class FileSource(Source):
    """What the user named on the command line, as entries; see ``Source``.

    Each spec is a folder (walked to its end), a file, a glob (``*``, ``?``, ``[...]``, ``**``), ``@list.txt`` (a file
    of paths, one a line), ``-`` (such a list on standard input), or ``file:///folder``. A name that exists is taken
    literally; a file whose name begins with ``@`` is ``./@name``. Roots that overlap are read once, and so is a file
    that is named twice, in time and memory that do not depend on how many there are; lines of lists are taken as they
    are.

    A file with the name of a picture is a candidate, also in formats that are not decoded: those end as dead letters.
    Of other files the first 16 bytes are looked at: a picture is a candidate, the rest is filtered. What is listed and
    missing, folders that cannot be listed, and what is no regular file are ``Broken``; the latter are never opened.
    So is a picture that was named and is not there, as long as anything else that was named is.

    Args:
        specs: at least one. Of many nothing is kept but the texts as they are given.
        stdin: what ``-`` reads; standard input by default. It can be read once.
        null: paths in lists end with NUL rather than with a line's end.
        later: look at the specs when the first entry is asked for, not now: what is wrong with them is raised then.
        selection: what is wanted of folders.
        urls: how URLs are read.
        media: what is looked for.

    Raises:
        SourceError: nothing lies at a spec, or a pattern matches nothing, or a list cannot be opened or is none.
    """

    order = "path"

    def __init__(
        self,
        specs: str | Sequence[str],
        stdin: BinaryIO | None = None,
        null: bool = False,
        *,
        later: bool = False,
        selection: Selection = ALL,
        urls: UrlOptions | None = None,
        media: Media = PICTURES,
    ) -> None:
        self.specs = (specs,) if isinstance(specs, str) else tuple(specs)
        if any(spec.startswith(FILE_URL) for spec in self.specs):
            self.specs = tuple(map(path_of_url, self.specs))
        self.null = null
        self.selection = selection
        self.media = media
        self._stdin = stdin
        self._urls = (urls or UrlOptions()).locator
        if any(is_list(spec) or is_url(spec) for spec in self.specs):
            self.locator = self._urls
        if not self.specs:
            raise SourceError("no source: give a folder, a file, a glob, @list.txt or -")
        if self.specs.count(STDIN) > 1:
            raise SourceError("standard input (-) can be read once: give - once")
        self._checked = not later
        if not later:
            check(self.specs, null)
        self._total: int | None = None

    def __iter__(self) -> Iterator[Entry]:
        return (self._entry(found) for _, found in self._found())

    def parts(self) -> Iterator[tuple[int, Entry]]:
        """The entries, each with the index of the spec it comes from."""
        return ((part, self._entry(found)) for part, found in self._found())

    def item(self, ordinal: int, name: str, version: Version) -> Item:
        """The file at a path, or what a URL leads to."""
        if name.startswith("/"):
            return Item(key_of(name), name, ordinal=ordinal, version=version)
        return Item(name, ordinal=ordinal, version=version, reference=Reference(self._urls, name, version))

    def name_of(self, entry: Entry) -> str:
        """Its path, of any bytes; of what is no path at all, its text."""
        return entry.path if isinstance(entry, Item) and entry.path else path_of(entry.key)

    def version_of(self, item: Item) -> Version:
        """Size and time of the last change, as they are now where nobody has looked yet."""
        if item.version is not None or item.path is None:
            return super().version_of(item)
        return file_version(item.path)

    def look_again(self, name: str, why: str) -> Entry:
        """What lies now where something was broken. A folder still is: what it holds is not listed.

        Args:
            name: its path; or the text of what is no path, which stays broken.
            why: what was said of it then.
        """
        found = look(name) if name.startswith("/") and "\0" not in name else Found(name, ReadError(why))
        if found.folder:
            return Broken(key_of(name), ReadError(f"{why} (a folder: --update looks into it again)"))
        if found.problem is not None and why.endswith(str(found.problem)):  # it may say more: the line of a list
            return Broken(key_of(name), ReadError(why))
        return self._entry(found)

    def total(self) -> int | None:
        """How many entries there will be, once `count` has found out."""
        return self._total

    def emptiness(self) -> str:
        """What to say if there are no entries."""
        return emptiness(self.specs)

    def portable_specs(self) -> Iterator[str]:
        """The specs with absolute paths."""
        return map(_portable, self.specs)

    def fingerprint(self) -> str:
        """The specs, how their lists end, and what is wanted of folders."""
        null = ["--null"] * (self.null and any(map(is_list, self.specs)))
        return " ".join([*self._specs_summary(), *null, *self.selection.as_options()])

    def count(self, seconds: float = 10.0) -> None:
        """Begin to count entries in a thread, for the time left. Gives up after so many seconds.

        Nothing is opened but lists: the names are counted. Does nothing where a list can be read only once.
        """
        if all(_can_be_read_again(spec) for spec in self.specs):
            threading.Thread(target=self._count, args=(seconds,), name="penstock-count", daemon=True).start()

    def _count(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        number = 0
        try:
            for number, _ in enumerate(self._found(), 1):
                if number % 256 == 0 and time.monotonic() > end:
                    return
        except SourceError:
            return  # a list went away; whoever iterates is told
        self._total = number

    def _entry(self, found: Found) -> Entry:
        return self.item(-1, found.path, Version()) if found.url else _entry(found, self.media)

    def _found(self) -> Iterator[tuple[int, Found]]:
        if not self._checked:
            check(self.specs, self.null)
            self._checked = True
        earlier = Earlier()
        for number, spec in enumerate(self.specs):
            for found in self._lines(spec) if is_list(spec) else self._named(spec, earlier):
                yield number, found

    def _named(self, spec: str, earlier: Earlier) -> Iterator[Found]:
        found = look_for(spec)
        pattern = found.problem is not None and as_pattern(spec)
        if pattern or found.folder:
            root = Root.of_pattern(spec, self.selection) if pattern else Root.of(found.path, self.selection)
            nothing = True
            for below in root.walk(earlier):
                nothing = False
                yield below
            earlier.add(root)
            if pattern and nothing and not matches(spec):  # it was a name, of what went away
                yield found
        elif found.url or earlier.take(found.path):
            yield found

    def _lines(self, spec: str) -> Iterator[Found]:
        """What the lines of a list name. None can end the job: what is wrong with one is its own problem."""
        path = list_of(spec)
        name = "standard input" if path is None else spec
        with nullcontext(self._stdin or sys.stdin.buffer) if path is None else open_list(path) as file:
            for number, line in read_paths(file, name, self.null):
                where = f"{'path' if self.null else 'line'} {number} of {name}"
                found = broken_line(line, where) or look_for(os.fsdecode(line))
                walked = Root.of(found.path, self.selection).walk(Earlier()) if found.folder else [found]
                for each in walked:
                    yield each._replace(problem=ReadError(f"{where}: {each.problem}")) if each.problem else each


def _portable(spec: str) -> str:
    if spec == STDIN:
        return spec
    if is_url(spec):
        return spec
    mark = "@" if spec.startswith("@") else ""
    return mark + anchored(spec.removeprefix(mark))


def _can_be_read_again(spec: str) -> bool:
    path = list_of(spec) if is_list(spec) else None
    return spec != STDIN and (path is None or os.path.isfile(path))  # noqa: PTH113


def _entry(found: Found, media: Media) -> Entry:
    """A candidate, none, or broken; of a file."""
    path, key = found.path, key_of(found.path)
    if found.aside:
        return Filtered(key, found.aside)
    if found.problem is not None:
        return Broken(key, found.problem)
    if media.has_name(path):
        return Item(key, path, version=found.version)
    try:
        head = read_head(path)
    except OSError as error:
        return Broken(key, ReadError(f"cannot be read: {reason(error)}"))
    if media.looks_like(head):
        return Item(key, path, version=found.version)
    return Filtered(key, media.what_else(path, head, found.named))
