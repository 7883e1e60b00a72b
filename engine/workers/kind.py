"""What a kind of work is to the pool: how its workers start, what a slot looks like, and what its tasks say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ...errors import ItemError
from ...shm import SlotLayout
from ...shm.protocol import Message
from .shared_fork_server import SharedForkServer


class Answer(Protocol):
    """What a worker says became of a task."""

    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def rows(self) -> Sequence[object]:
        """What lies in each row of the slot. Several rows may be of one item, and an item may have none."""
        ...

    @property
    def failures(self) -> Sequence[tuple[int, ItemError]]:
        """Positions of the items that failed, with the reasons."""
        ...

    def check(self, size: int) -> None:
        """Make sure that it makes sense as the answer to a task of so many items.

        Raises:
            WorkerError: it does not.
        """
        ...


I = TypeVar("I")  # noqa: E741  (an item, as a task takes it)
I_contra = TypeVar("I_contra", contravariant=True)
A = TypeVar("A", bound=Answer)
A_co = TypeVar("A_co", bound=Answer, covariant=True)


class Codec(Protocol[I_contra, A_co]):
    """A kind's tasks and answers as they travel; see ``shm.protocol`` for what all kinds have in common."""

    def encode(self, slot: int, generation: int, items: Sequence[I_contra]) -> Message:
        """A TASK. Runs on the hub: what takes long goes into the message's payload, which a thread copies."""
        ...

    def decode(self, frame: bytes) -> A_co:
        """A DONE. What is wrong with it is a ValueError or its like."""
        ...

    def describe(self, item: I_contra) -> str:
        """An item, for people."""
        ...


@dataclass(frozen=True)
class WorkerKind(Generic[I, A]):
    """A kind of work.

    Attributes:
        entry: the worker's own side, ``module:function``. It is called as ``zygote.Zygote`` says, with a socket and the
            settings, and speaks ``shm.protocol``.
        settings: what the worker of this number is started with.
        codec: its tasks and answers as they travel.
        layout: what a slot looks like, if that is known before a worker says it: rings are then made ahead.
        fork_server: what its workers are forked from.
        item_timeout: seconds one item may take; None: as long as it likes.
        item: what people call one.
        watches_itself: whether its workers see to that time themselves, and leave when it is over. Then one that does
            nothing for as long was stopped, and that is not the item's fault; else the item had its time.
        marks_steps: whether a task has one item, and what its worker marks are steps of the work on it: each is a sign
            of life, so that `item_timeout` is for a step.
    """

    entry: str
    settings: Callable[[int], bytes]
    codec: Codec[I, A]
    layout: SlotLayout | None
    fork_server: SharedForkServer
    item_timeout: float | None
    item: str = "item"
    watches_itself: bool = False
    marks_steps: bool = False
