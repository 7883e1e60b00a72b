"""What a job leaves out: counted by reason, listed on request, and said where nothing was written at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ....errors import ConfigError
from ....formatting import count, printable
from ...sources import Filtered, Source

_REASONS: Final = 50
"""Reasons to count apart: some name the file."""

_OTHER: Final = "other reasons"
_SHOWN: Final = 3
_LONGEST: Final = 300
"""Characters shown of what a dead letter says."""


class FilteredList:
    """A file of what was left out, a JSON object with ``key`` and ``why`` a line. Closed with the job.

    Raises:
        ConfigError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("w", encoding="ascii")
        except OSError as error:
            raise ConfigError(f"list_filtered: {str(path)!r} cannot be written: {error.strerror}") from error

    def write(self, key: str, why: str) -> None:
        """Add one."""
        self._file.write(json.dumps({"key": key, "why": why}) + "\n")

    def close(self) -> None:
        """Back when it is all in the file."""
        self._file.close()


class Passing:
    """Things of a source on their way to the first stage, and a look at those that go no further.

    Args:
        listing: where they are listed.

    Attributes:
        reasons: why things were left out, and how many.
        first: the key of the first for each reason.
    """

    def __init__(self, listing: FilteredList | None = None) -> None:
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self._listing = listing

    def __call__(self, entries: Iterable[Any]) -> Iterator[Any]:
        """The same entries."""
        for entry in entries:
            if isinstance(entry, Filtered):
                why = entry.why if entry.why in self.reasons or len(self.reasons) < _REASONS else _OTHER
                self.reasons[why] += 1
                self.first.setdefault(why, entry.key)
                if self._listing is not None:
                    self._listing.write(entry.key, entry.why)
            yield entry


def nothing_written(counts: Mapping[str, int], passed: Passing, source: Iterable[Any], why: str = "") -> str:
    """What a person needs to hear when a job has written no row: what there was, and what was probably meant.

    Args:
        counts: ``written``, ``filtered`` and ``dead``, of the whole job.
        passed: what was left out.
        source: what was read.
        why: what the first dead letter says, if there is one.

    Returns:
        One line; empty if rows were written.
    """
    if counts["written"]:
        return ""
    if not (counts["filtered"] or counts["dead"]):
        found = source.emptiness() if isinstance(source, Source) else "there was no picture to iterate over"
        return f"nothing was read: {found}"
    noun = source.media.noun if isinstance(source, Source) else "picture"
    said = [_reason(passed, why, number) for why, number in passed.reasons.most_common(_SHOWN)]
    if counts["dead"]:
        only = counts["dead"] == 1
        failed = f"the only {noun} failed" if only else f"all {count(counts['dead'])} {noun}s failed"
        because = f"{': ' if only else ', the first because: '}{printable(why)[:_LONGEST]}" if why else ""
        return "nothing was written: " + "; ".join([failed + because, *(f"left out: {reason}" for reason in said)])
    return f"nothing was written, for there was no {noun}: {'; '.join(said) or 'everything was left out'}"


def _reason(passed: Passing, why: str, number: int) -> str:
    first = printable(passed.first[why])
    return f"{why} ({first})" if number == 1 else f"{why} ({count(number)}, such as {first})"
