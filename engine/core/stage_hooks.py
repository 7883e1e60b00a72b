"""The hooks around whole stages, of one run: entered before the first task, left after the last one."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from time import monotonic

from .asyncio_loop import AsyncLoop
from .hook_runner import Guard, stage_managers
from .hooks import TaskHook
from .hub import Event, Hub, Mailbox
from .runners import Answer
from .stage import Node, as_exception

_logger = logging.getLogger(__name__)

_LEAST = 0.1
"""Seconds that hooks get to end where operations have used up the time there was."""


class StageHooks:
    """Opens and closes them. On the hub.

    Args:
        record: is told the stage, the errors and the reason where hooks raise.
    """

    def __init__(self, hub: Hub, mailbox: Mailbox, record: Callable[[str, Sequence[Exception], str], object]) -> None:
        self._hub = hub
        self._mailbox = mailbox
        self._record = record
        self._open: dict[Node, Guard] = {}
        self._closing: set[Node] = set()
        self._all_left = Event(hub)

    def enter(self, node: Node, hooks: Sequence[TaskHook], loop: AsyncLoop) -> bool:
        """Enter those of a stage, waiting in the current fiber; says whether they could be."""
        guard = Guard(self._hub, self._mailbox, loop, stage_managers(hooks))
        try:
            error = guard.entered.wait().error
        except BaseException:
            guard.cancel()
            raise
        if error is not None:
            self._record(node.name, [as_exception(error)], "its stage_hook raised")
            return False
        self._open[node] = guard
        return True

    def leave(self, node: Node, error: BaseException | None) -> None:
        """The stage has ended, of this error if it was early: leave its hooks, soon."""
        guard = self._open.get(node)
        if guard is None or node in self._closing:
            return
        self._closing.add(node)
        guard.leave(Answer(None, error, 0.0))
        guard.left.then(lambda answer: self._left(node, answer.error, error))

    def _left(self, node: Node, raised: BaseException | None, given: BaseException | None) -> None:
        del self._open[node]
        if raised is not None and raised is not given and not isinstance(raised, CancelledError):
            self._record(node.name, [as_exception(raised)], "its stage_hook raised")
        if not self._open:
            self._all_left.set()

    def end(self, deadline: float) -> None:
        """Wait until all are left."""
        for node in list(self._open):
            self.leave(node, CancelledError())
        if self._open and not self._all_left.wait(max(deadline - monotonic(), _LEAST)):
            names = ", ".join(node.name for node in self._open)
            _logger.warning("stages whose stage_hook did not end in time: %s", names)
