"""Duplicates as one HTML page: each picture that stays, and beside it those that are not needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ..sources.frame_keys import frame_of
from .contact_sheet import PATIENCE, ShowFrames, Thumbnail, frame_picture, picture
from .html import page

_GROUPS: Final = 200
_SHOWN: Final = 12
"""Groups on a page, and pictures of one."""


class Listed(Protocol):
    """What the page needs of a duplicate."""

    @property
    def key(self) -> str: ...
    @property
    def duplicate_of(self) -> str: ...
    @property
    def similarity(self) -> float: ...
    @property
    def rule(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Group:
    """A picture that stays, and its duplicates; `more` of them are not shown."""

    keeper: Thumbnail
    duplicates: list[tuple[Thumbnail, str]]
    more: int


def duplicates_sheet(
    duplicates: Iterable[Listed],
    rule: str,
    paths: Callable[[Sequence[str]], Mapping[str, str]] = lambda _: {},
    *,
    show_frames: ShowFrames,
) -> str:
    """The page, the largest groups first. What cannot be shown is said so in its place.

    Args:
        duplicates: items that go.
        rule: by which.
        paths: of keys that are no paths themselves.
        show_frames: reads frames of videos.
    """
    groups: dict[str, list[Listed]] = {}
    for each in duplicates:
        groups.setdefault(each.duplicate_of, []).append(each)
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[:_GROUPS]
    keys = [key for keeper, some in largest for key in (keeper, *(each.key for each in some[:_SHOWN]))]
    pictures = _pictures({**{key: key for key in keys}, **paths(keys)}, show_frames)
    shown = [
        _Group(
            pictures[keeper],
            [(pictures[each.key], _why(each)) for each in members[:_SHOWN]],
            max(0, len(members) - _SHOWN),
        )
        for keeper, members in largest
    ]
    count = sum(map(len, groups.values()))
    return page("duplicates_sheet.html", groups=shown, rule=rule, count=count, more=max(0, len(groups) - _GROUPS))


def _pictures(places: Mapping[str, str], show_frames: ShowFrames) -> dict[str, Thumbnail]:
    """What is shown for each key, by where it lies: a file, or a frame of a video."""
    frames = {key: frame for key, place in places.items() if (frame := frame_of(place)) and not Path(place).is_file()}
    found = show_frames([*frames.values()], PATIENCE)
    return {
        key: frame_picture(frames[key], found[frames[key]]) if key in frames else picture(place)
        for key, place in places.items()
    }


def _why(listed: Listed) -> str:
    return f"{listed.rule} {listed.similarity:.4f}"
