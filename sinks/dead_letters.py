"""Dead letters: one JSON line for every item that could not be done, so that none disappears silently."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..durable import LineFile, put
from ..errors import ConfigError
from ..messages import redact, without_addresses

_NAMES = frozenset({"key", "stage", "error", "message", "attempts", "time"})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One item that could not be done."""

    key: str
    """The item's own key or name, as the source gave it."""
    stage: str
    error: str
    """Class name of the error."""
    message: str
    attempts: int
    time: str
    """UTC, ISO 8601, milliseconds."""
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """Whatever else was recorded; JSON values."""


class DeadLetters:
    """Appends dead letters to a file (mode 0600). One process, any number of threads. Made with the first letter.

    Args:
        path: the file, ``dead_letters.jsonl`` by convention. Its folder is made with it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = LineFile(self.path)

    @property
    def count(self) -> int:
        """Letters written by this object."""
        return self._file.count

    def write(
        self, key: str | bytes, stage: str, error: BaseException, *, attempts: int = 1, **fields: Any
    ) -> DeadLetter:
        """Record one item. On disk when it returns (in the page cache: safe against the death of the process).

        Args:
            key: the item; any text or bytes, also hostile ones: JSON escapes what is not plain ASCII. Credentials in a
                URI are left out.
            stage: where it failed.
            error: why. Credentials in URIs of its message are left out, and where objects lie in memory.
            attempts: how often it was tried.
            fields: anything else worth knowing; values that are not JSON are kept as text.

        Raises:
            ConfigError: a field with the name of one that every letter has.
            OSError: the file, which it names, cannot be written. The item is then not accounted for: stop the job.
        """
        taken = _NAMES.intersection(fields)
        if taken:
            raise ConfigError(f"dead letter: the field {min(taken)!r} is one of the letter's own; name it otherwise")
        letter = DeadLetter(
            key=redact(os.fsdecode(key)),
            stage=stage,
            error=type(error).__name__,
            message=without_addresses(redact(str(error))),
            attempts=attempts,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            fields={name: _redacted(value) for name, value in fields.items()},
        )
        record = asdict(letter)
        line = json.dumps(record | record.pop("fields"), default=_as_text, ensure_ascii=True) + "\n"
        self._file.append(line.encode("ascii"))
        return letter

    def sync(self) -> None:
        """Back only when all letters written before are on the medium. Costs nothing where there are no new ones.

        Raises:
            OSError: the disk refuses.
        """
        self._file.sync()

    def close(self) -> None:
        """Sync and close the file. Idempotent; a later letter opens it again.

        Raises:
            OSError: the disk refuses the sync; the file is closed nevertheless.
        """
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def read_dead_letters(path: str | os.PathLike[str]) -> Iterator[DeadLetter]:
    """The letters in a file, oldest first, in constant memory; none if there is no such file.

    Lines that are torn (their writer was killed) are passed over: their items were not acknowledged as dead, so a
    resumed job does them again.
    """
    return (letter for letter in _letters(Path(path)) if letter is not None)


def keep_dead_letters(path: str | os.PathLike[str], stands: Callable[[str], bool]) -> None:
    """Take out letters that do not stand any more, and all but the newest of each key; without any left, the file.

    The file is there as it was, or as it is to be, whenever the process dies. Nobody may write to it meanwhile.

    Args:
        path: the file; nothing happens if there is none.
        stands: asked with the key of each letter.

    Raises:
        OSError: the disk refuses; the file is as it was.
    """
    path, newest, lines = Path(path), dict[str, int](), 0
    for lines, letter in enumerate(_letters(path), 1):
        if letter is not None and stands(letter.key):
            newest[letter.key] = lines
    if len(newest) == lines:
        return
    if not newest:
        path.unlink(missing_ok=True)
        return
    kept, unfinished = frozenset(newest.values()), path.with_name(f"{path.name}.tmp")
    unfinished.unlink(missing_ok=True)
    with open(path, "rb") as old, open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
        new.writelines(line for number, line in enumerate(old, 1) if number in kept)
    put(unfinished, path)


def _letters(path: Path) -> Iterator[DeadLetter | None]:
    """What each line says; None for one that is torn."""
    if path.exists():
        with open(path, "rb") as file:
            for line in file:
                yield _parse(line)


def _parse(line: bytes) -> DeadLetter | None:
    try:
        record: dict[str, Any] = json.loads(line)
        return DeadLetter(
            **{name: record[name] for name in _NAMES},
            fields={name: value for name, value in record.items() if name not in _NAMES},
        )
    except (ValueError, KeyError, TypeError):
        return None


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        entries: dict[Any, Any] = value
        return {str(name): _redacted(entry) for name, entry in entries.items()}
    if isinstance(value, (list, tuple)):
        members: list[Any] | tuple[Any, ...] = value
        return [_redacted(member) for member in members]
    return value


def _as_text(value: Any) -> str:
    return redact(str(value))
