"""Finds the poison item of a batch: one batch over as many attempts as it takes, and whom to give up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import DeadlineError, ItemError, PoisonItemError, WorkerError

_DEATHS = 3
"""Deaths of workers that an item may cause before it is poison."""


class WorkerLost(Exception):  # noqa: N818  (a message between the pool's own parts, never seen by users)
    """A task came to nothing because its worker left.

    Attributes:
        worker: e.g. ``worker 1 (pid 4711)``; ``how``: e.g. ``was killed by signal 9 (SIGKILL)``.
        begun: whether the worker had begun this task; ``row``: the item it was at, if it was at one.
        hung: whether the worker left because that item was over its deadline.
    """

    def __init__(self, worker: str, how: str, *, begun: bool, row: int | None, hung: bool) -> None:
        super().__init__(f"{worker} {how}")
        self.worker = worker
        self.how = how
        self.begun = begun
        self.row = row
        self.hung = hung


@dataclass(slots=True)
class PoisonFinder:
    """What is left to do of one batch, and which of its items end workers.

    While a worker is at one item its number is in the slot's header, so a death there names it. A death in what is done
    with the whole batch (a kernel, an embedder) names none: the second time the batch is halved, and its halves are
    tried alone until the one item is found; then the others are done together.

    Attributes:
        size: items in the batch.
        item, item_timeout: see `WorkerKind`.
        live: positions of the items that are not given up; empty when there is nothing left to do.
        failures: those that are, each with the reason.
    """

    size: int
    item: str = "item"
    item_timeout: float | None = None
    live: list[int] = field(init=False)
    failures: list[tuple[int, ItemError]] = field(default_factory=list[tuple[int, ItemError]])
    _deaths: dict[int, int] = field(default_factory=dict[int, int])
    _bisecting: list[list[int]] = field(default_factory=list[list[int]])
    _bisected: bool = False

    def __post_init__(self) -> None:
        self.live = list(range(self.size))

    @property
    def part(self) -> Sequence[int]:
        """The positions to do next: half of a batch that killed its worker, or all that is left."""
        return self._bisecting[-1] if self._bisecting else self.live

    def on_ok(self) -> bool:
        """Take note that the part was done. True if it was only tried: its items are still to be done."""
        if not self._bisecting:
            return False
        for position in self._bisecting.pop():
            self._deaths.pop(position, None)
        return True

    def on_worker_lost(self, lost: WorkerLost) -> None:
        """Take note that a worker left while it did the part: give up whom that convicts, else try again.

        Raises:
            WorkerError: the batch ends workers only as a whole, which is no item's fault.
        """
        if not lost.begun:
            return
        part = list(self.part)
        blamed = part if lost.row is None else [part[lost.row]]
        for position in blamed:
            self._deaths[position] = self._deaths.get(position, 0) + 1
        if lost.hung and lost.row is not None:
            self._give_up(blamed, self._late(lost))
        elif len(blamed) == 1:
            if self._deaths[blamed[0]] >= _DEATHS:
                self._give_up(blamed, _poison(lost))
        elif self._bisecting or not self._bisected:
            self._bisect(part)
        elif min(self._deaths[position] for position in part) >= _DEATHS:  # each half alone did no harm
            raise WorkerError(
                f"a batch of {len(part)} {self.item}s ends its worker each time, and neither half of it alone does; the"
                f" last {lost.worker} {lost.how}. If memory is short, make --batch-size or --workers smaller"
            )

    def _late(self, lost: WorkerLost) -> DeadlineError:
        limit = f" ({self.item_timeout:g} s)" if self.item_timeout is not None else ""
        end = "was killed" if lost.how.startswith("was killed") else "was replaced"
        return DeadlineError(f"took longer than item_timeout{limit}; {lost.worker} {end}")

    def _bisect(self, part: list[int]) -> None:
        if min(self._deaths[position] for position in part) < _DEATHS - 1:
            return
        if self._bisecting:
            self._bisecting.pop()
        self._bisected = True
        middle = len(part) // 2
        self._bisecting += [part[:middle], part[middle:]]

    def _give_up(self, positions: Sequence[int], error: ItemError) -> None:
        self.failures.extend((position, error) for position in positions)
        gone = set(positions)
        self.live = [position for position in self.live if position not in gone]
        left = [[position for position in part if position not in gone] for part in self._bisecting]
        self._bisecting = [part for part in left if part]


def _poison(lost: WorkerLost) -> PoisonItemError:
    story = f"killed its worker {_DEATHS} times; the last {lost.worker} {lost.how}"
    if "SIGSYS" in lost.how:
        story += ", because it tried what the sandbox forbids"
    return PoisonItemError(story)
