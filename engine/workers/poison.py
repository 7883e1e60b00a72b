"""One batch on its way through the pool, over as many attempts as it takes; and which of its pictures to blame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import DeadlineError, ItemError, PoisonItemError, WorkerError
from .pool_worker import Lost

_DEATHS = 3
"""Deaths of workers that an item may cause before it is poison."""


@dataclass(slots=True)
class Ticket:
    """What is left to do of one batch.

    While a picture is decoded its number is in the slot's header, so a death there names its picture. A death in the
    kernel or in an embedder of the worker names none: the second time the batch is halved, and its halves are tried
    alone until the one picture is found; then the others are done together.

    Attributes:
        live: positions of the pictures that are not given up; empty when there is nothing left to do.
        failures: those that are, each with the reason.
    """

    size: int
    live: list[int] = field(init=False)
    failures: list[tuple[int, ItemError]] = field(default_factory=list[tuple[int, ItemError]])
    _deaths: Counter[int] = field(default_factory=Counter[int])
    _suspects: list[list[int]] = field(default_factory=list[list[int]])
    _halved: bool = False

    def __post_init__(self) -> None:
        self.live = list(range(self.size))

    @property
    def part(self) -> Sequence[int]:
        """The positions to do next: half of a batch that killed its worker, or all that is left."""
        return self._suspects[-1] if self._suspects else self.live

    def acquit(self) -> bool:
        """Take note that the part was done. True if it was only tried: its pictures are still to be done."""
        if not self._suspects:
            return False
        for position in self._suspects.pop():
            del self._deaths[position]
        return True

    def blame(self, lost: Lost) -> None:
        """Take note that a worker left while it did the part: give up whom that convicts, else try again.

        Raises:
            WorkerError: the batch ends workers only as a whole, which is no picture's fault.
        """
        if not lost.begun:
            return
        part = list(self.part)
        blamed = part if lost.row is None else [part[lost.row]]
        self._deaths.update(blamed)
        if lost.hung and lost.row is not None:
            self._give_up(blamed, DeadlineError(f"took longer than item_timeout; its {lost.worker} was replaced"))
        elif len(blamed) == 1:
            if self._deaths[blamed[0]] >= _DEATHS:
                self._give_up(blamed, _poison(lost))
        elif self._suspects or not self._halved:
            self._halve(part)
        elif min(self._deaths[position] for position in part) >= _DEATHS:  # each half alone did no harm
            raise WorkerError(
                f"a batch of {len(part)} pictures ends its worker each time, and neither half of it alone does; the"
                f" last {lost.worker} {lost.how}. If memory is short, make --batch-size or --workers smaller"
            )

    def _halve(self, part: list[int]) -> None:
        if min(self._deaths[position] for position in part) < _DEATHS - 1:
            return
        if self._suspects:
            self._suspects.pop()
        self._halved = True
        middle = len(part) // 2
        self._suspects += [part[:middle], part[middle:]]

    def _give_up(self, positions: Sequence[int], error: ItemError) -> None:
        self.failures.extend((position, error) for position in positions)
        gone = set(positions)
        self.live = [position for position in self.live if position not in gone]
        left = [[position for position in part if position not in gone] for part in self._suspects]
        self._suspects = [part for part in left if part]


def _poison(lost: Lost) -> PoisonItemError:
    story = f"killed its worker {_DEATHS} times; the last {lost.worker} {lost.how}"
    if "SIGSYS" in lost.how:
        story += ", because it tried what the sandbox forbids"
    return PoisonItemError(story)
