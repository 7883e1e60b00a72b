"""What a seed decides: the job, which faults are on, and at which pass each of them fires.

FoundationDB's two draws: a fault point is on with 25 % in a storm, and then fires with 25 % at each pass. A pass is a
step of the job as the driver sees it, or an operation inside of the job. All draws hang on the seed and on the numbers
of run and pass, never on the clock: a seed that is run again decides the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

CHANCE: Final = 0.25

OUTSIDE: Final = (
    "kill a worker",
    "kill the fork server",
    "kill the store",
    "kill the parent",
    "pause a worker",
    "drain",
    "leave at once",
    "dump",
    "remove a picture",
    "replace a picture",
)
"""What the driver does to a job."""

INSIDE: Final = (
    "a write fails",
    "a write is torn",
    "a sync fails",
    "a rename fails",
    "the disk is full",
    "a letter fails",
)
"""What the job's own disk does, by the layer that the journal is written through."""

_PASSES: Final = {
    "a write fails": 30,
    "a write is torn": 30,
    "a letter fails": 6,
    "a sync fails": 3,
    "a rename fails": 3,
}
"""How often a run passes a point, where that is not about 24 times."""

DISTURBED_RUNS: Final = 2
"""Runs of a storm with faults; those after them are calm, so that each storm ends."""


@dataclass(frozen=True)
class Seed:
    """The draws of one seed.

    Attributes:
        number: the seed.
        store: what the rows are written to.
        embedder: where the vectors are made: in the workers, or in threads of the parent.
        on: the faults that are on.
    """

    number: int
    store: Literal["lite", "bulk"]
    embedder: Literal["worker", "thread"]
    on: frozenset[str]

    @classmethod
    def of(cls, number: int) -> Seed:
        """What this seed says."""
        draw = random.Random(number)
        on = frozenset(fault for fault in OUTSIDE + INSIDE if draw.random() < CHANCE)
        return cls(number, draw.choice(("lite", "bulk")), draw.choice(("worker", "thread")), on)

    def draws(self, *names: object) -> random.Random:
        """Draws of their own for a purpose."""
        return random.Random(" ".join(map(str, (self.number, *names))))

    def fires(self, fault: str, run: int, passing: int) -> bool:
        """Whether a fault fires in a run at a pass: in each run from another one on, or all would at the beginning."""
        if fault not in self.on or run >= DISTURBED_RUNS:
            return False
        first = int(_PASSES.get(fault, 24) * self.draws(fault, run).random() ** 2)
        return passing >= first and self.draws(fault, run, passing).random() < CHANCE

    def settings(self, run: int) -> list[str]:
        """Options of a run: how the work is cut, which may differ from run to run."""
        draw = self.draws("settings", run)
        return [
            *("--workers", str(draw.randint(1, 3))),
            *("--slots", str(draw.randint(1, 3))),
            *("--batch-size", str(draw.choice((1, 4, 7)))),
            *("--insert-batch-size", str(draw.choice((4, 9, 16)))),
        ]
