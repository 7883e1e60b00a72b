"""A batch in a slot: what ``PreprocessPool.process`` returns, and who may touch it until when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ItemError
from ..shm import Grant, SlotView
from .member import Member
from .protocol import Row, Timings

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use one slot of one worker's ring until it is given back."""

    member: Member
    grant: Grant
    give_back: Callable[[Lease], None]


class SlotBatch:
    """One preprocessed batch, lying in shared memory.

    Attributes:
        rows: the pictures in the slot; ``rows[i].position`` says which of the batch's sources row ``i`` is.
        failures: ``(position, error)`` of the others, by position.
        timings: seconds of the worker's phases.

    ``pixels`` and ``embeddings`` are views into the ring. They are valid, and the slot is ours alone, until
    ``release``.
    """

    __slots__ = ("_lease", "_view", "failures", "rows", "timings")

    def __init__(
        self, rows: list[Row], failures: Sequence[tuple[int, ItemError]], timings: Timings, lease: Lease | None
    ) -> None:
        self.rows = rows
        self.failures = sorted(failures, key=lambda failure: failure[0])
        self.timings = timings
        self._lease = lease
        self._view = lease.member.view(lease.grant) if lease else None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def view(self) -> SlotView:
        """The slot's whole areas: pixels ``[B, ...]`` and embeddings ``[B, D]``; rows from ``len(self)`` on are stale.

        Raises:
            RuntimeError: the slot has been released, or no picture of the batch could be preprocessed.
        """
        if self._view is None:
            raise RuntimeError("this batch holds no slot (released, or every picture failed): its pixels are gone")
        return self._view

    @property
    def pixels(self) -> Array:
        """``[n, ...]`` preprocessed pixels, a view into the ring."""
        return self.view.pixels[: len(self.rows)]

    @property
    def embeddings(self) -> Array:
        """``[n, D]`` float32, a view into the ring; filled already if the embedder runs in the worker."""
        return self.view.embeddings[: len(self.rows)]

    def check(self) -> None:
        """Make sure that nobody else has written here meanwhile.

        Raises:
            StaleSlotError: somebody has; what was read must not be used.
        """
        if self._lease:
            self._lease.member.check(self._lease.grant, len(self.rows))

    def release(self) -> None:
        """Give the slot back. Idempotent; from any thread."""
        lease, self._lease, self._view = self._lease, None, None
        if lease:
            lease.give_back(lease)
