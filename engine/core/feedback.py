"""Feedback edges make loops, whose end is decided by counting what is in flight."""

from __future__ import annotations

from collections.abc import Sequence

from .stage import Node
from .stage_aggregate import Aggregate


class FeedbackLoop:
    """The stages between the two ends of a feedback edge, both included.

    Attributes:
        is_armed: nothing comes from before any more: once nothing is in flight inside, nothing ever will be.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self.is_armed = False
        self._ended = False

    def __contains__(self, node: Node) -> bool:
        return node in self._nodes

    @property
    def head(self) -> Node:
        """Where the edge leads to."""
        return self._nodes[0]

    def has_ended(self) -> bool:
        """True once, when nothing is in flight any more. What only waits for more in an aggregate is let go first."""
        if not self.is_armed or self._ended or not all(node.is_idle for node in self._nodes):
            return False
        for node in self._nodes:
            if isinstance(node, Aggregate) and node.has_entries:
                node.flush()
                return False
        self._ended = True
        return True
