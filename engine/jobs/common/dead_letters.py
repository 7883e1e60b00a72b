"""The dead letters of a job that keeps books: which of them stand, and which entries are to be tried again.

Letters name entries by their keys without credentials, as they were written; ordinals change when a source is listed
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from ....messages import redact
from ....sinks.dead_letters import DeadLetter, keep_dead_letters, read_dead_letters
from ...journal import JobFolder, Outcome
from ...sources import key_of
from ...sources.frame_keys import frame_of

NO_LETTER = "unknown"
"""What is said of a dead entry whose letter is lost: a power failure may take the last of them."""


def latest_letters(path: Path) -> dict[str, DeadLetter]:
    """The newest dead letter of each key."""
    return {letter.key: letter for letter in read_dead_letters(path)}


def errors_of(path: Path, dead: Iterable[str]) -> Counter[str]:
    """How many entries died of which error.

    Args:
        path: of the letters.
        dead: names of the entries that are dead now: a retry may have done others since their letters were written.
    """
    return _counted(path, dead, lambda letter: letter.error)


def stages_of(path: Path, dead: Iterable[str]) -> Counter[str]:
    """How many entries died in which stage; see `errors_of`."""
    return _counted(path, dead, lambda letter: letter.stage)


def _counted(path: Path, dead: Iterable[str], said_by: Callable[[DeadLetter], str]) -> Counter[str]:
    said = {letter.key: said_by(letter) for letter in read_dead_letters(path)}
    return Counter(said.get(letter_key(key_of(name)), NO_LETTER) for name in dead)


def clear_letters(path: Path, folder: JobFolder, healed: Container[str]) -> None:
    """Take out the letters of what is not dead any more, at the end of a run.

    Args:
        path: of the letters.
        folder: of the job.
        healed: keys of what this run has done. While something remains only these are known to be done: what is to be
            tried again keeps its letter, for it says how often it was tried.

    Raises:
        OSError: the disk refuses.
    """
    if folder.finished:
        dead = {letter_key(key_of(entry.name)) for _, entry in folder.entries(Outcome.DEAD)}
        keep_dead_letters(path, lambda key: key in dead or _entry_of(key) in dead)
    else:
        keep_dead_letters(path, lambda key: key not in healed and _entry_of(key) not in healed)


def _entry_of(key: str) -> str:
    """The key of the entry that a letter is about: of a frame that of its video."""
    found = frame_of(key)
    return found[0] if found else key


def letter_key(key: str) -> str:
    """An item's key as its letter has it."""
    return redact(key)


def undo_dead(folder: JobFolder, keys: Container[str] | None) -> int:
    """Have dead entries done again in the next run.

    Args:
        folder: of the job.
        keys: of their letters; None for all that are dead, also without a letter.

    Returns:
        How many there were.
    """
    found = [
        ordinal
        for ordinal, entry in folder.entries(Outcome.DEAD)
        if keys is None or letter_key(key_of(entry.name)) in keys
    ]
    folder.undo(found)
    return len(found)
