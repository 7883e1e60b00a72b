"""What became of each input of one ``insert_images*`` call: its id or None, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ....messages import redact
from .batches import Picture, PictureFailure, Written

FAILURES_KEPT: Final = 1000
"""Failures of a call that are kept in memory, the first ones; the dead letters on disk have all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that is not in the store.

    Attributes:
        position: of the input, from 0.
        key: as in its dead letter: its id, its path, or a hash of its content.
        stage: where it failed.
        error: class name of the error, e.g. ``ReadError``.
        message: what it says.
    """

    position: int
    key: str
    stage: str
    error: str
    message: str


class Outcomes:
    """Of the inputs of one call, by position. Holds ids and a byte each, never a picture.

    Inputs come from the source's thread, failures from the engine's, rows from the caller's.
    """

    def __init__(self) -> None:
        self._ids: list[Any] = []
        self._written = bytearray()
        self._failures: list[Failure] = []

    def noting(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """The same pictures; each is an input from now on."""
        for picture in pictures:
            self._ids.append(picture.id)
            self._written.append(False)
            yield picture

    def written(self, value: Written) -> None:
        """The store has acknowledged these rows."""
        for position in value.ordinals:
            self._written[position] = True

    def failed(self, stage: str, failure: PictureFailure) -> None:
        """It could not be done."""
        if len(self._failures) < FAILURES_KEPT:
            name, message = type(failure.error).__name__, redact(str(failure.error))
            self._failures.append(Failure(failure.ordinal, failure.key, stage, name, message))

    @property
    def ids(self) -> list[Any]:
        """For each input its id, or None where it is not in the store."""
        return [own if done else None for own, done in zip(self._ids, self._written, strict=True)]

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The first `FAILURES_KEPT` that failed, in the order of the inputs."""
        return tuple(sorted(self._failures, key=lambda failure: failure.position))
