"""Which of the files below a folder are wanted: ``--include``, ``--exclude``, ``--follow-links``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ...errors import ConfigError

_PIECES: Final = re.compile(r"\*+|\?|\[!?\]?[^\]/]*\]|[^*?\[]+|\[")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken of a folder. Globs are matched on the path below the root, as those of ripgrep and rsync.

    A glob without a slash is about the name at any depth; one with a slash is about the whole path below the root, and
    a leading slash does nothing but say so. ``*``, ``?`` and ``[...]`` stay within a name, ``**`` is any number of
    folders, a slash at the end means folders only. Capital letters matter, hidden names do not. A glob that matches a
    folder is about all that lies in it. A file is taken if it matches one of ``include``, if there are any, and none
    of ``exclude``. What the user named himself, as an argument or in a list, is always taken.

    Attributes:
        include: globs.
        exclude: globs; these win.
        follow_links: walk into links to folders.

    Raises:
        ConfigError: a glob is none.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    follow_links: bool = False
    _included: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _excluded: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_included", _any_of("include", self.include))
        object.__setattr__(self, "_excluded", _any_of("exclude", self.exclude))

    def as_options(self) -> list[str]:
        """The options of the command line that say the same; none for everything."""
        globs = [f"--{name} {glob}" for name in ("include", "exclude") for glob in getattr(self, name)]
        return [*["--follow-links"] * self.follow_links, *globs]

    def leaves_out(self, below: str) -> str:
        """Why a file is left out, in a phrase; empty if it is not.

        Args:
            below: its path below the root.
        """
        if self._excluded is not None and self._excluded.fullmatch(below):
            return "excluded (--exclude)"
        if self._included is not None and not self._included.fullmatch(below):
            return "not included (--include)"
        return ""

    def leaves_out_folder(self, below: str) -> str:
        """The same for a folder, of which nothing is looked at then."""
        return "excluded (--exclude)" if self._excluded is not None and self._excluded.fullmatch(below + "/") else ""


def _any_of(name: str, globs: Sequence[str]) -> re.Pattern[str] | None:
    for glob in globs:
        try:
            re.compile(_regex(glob))
        except (re.error, ValueError) as error:
            raise ConfigError(f"{name}: {glob!r} is no glob, such as *.jpg, raw/** or thumbs/ ({error})") from None
    return re.compile("|".join(map(_regex, globs)), re.DOTALL) if globs else None


def _regex(glob: str) -> str:
    """One glob, to be matched against a whole path below the root; that of a folder ends in a slash."""
    parts = [part for part in glob.split("/") if part not in ("", ".")]
    if not parts:
        raise ValueError("it names nothing")
    anywhere = "" if "/" in glob.rstrip("/") else "(?:.*/)?"
    above = "".join("(?:[^/]+/)*" if part == "**" else _name(part) + "/" for part in parts[:-1])
    last = "[^/]+" if parts[-1] == "**" else _name(parts[-1])
    return anywhere + above + last + ("/.*" if glob.endswith("/") else "(?:/.*)?")


def _name(part: str) -> str:
    return "".join(map(_piece, _PIECES.findall(part)))


def _piece(piece: str) -> str:
    if piece.startswith("*"):
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if piece.startswith("[") and len(piece) > 2:
        inner = piece[1:-1]
        negated, inner = inner.startswith("!"), inner.removeprefix("!")
        chosen = re.sub(r"(.)-(.)|.", _range_or_sign, inner, flags=re.DOTALL)
        return f"(?!/)[{'^' * negated}{chosen}]"
    return re.escape(piece)


def _range_or_sign(match: re.Match[str]) -> str:
    """A piece of ``[...]``: whatever signs it is made of, they are meant as signs."""
    return "-".join(map(re.escape, match.groups() if match[1] else match[0]))


ALL: Final = Selection()
"""Everything; links to folders are not followed."""
