"""The stage that embeds batches that lie in slots, wherever the embedder runs; for every kind of job."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, Protocol, TypeVar

from ....preprocess import Timings
from ... import ItemFailure, Outcome, PipelineBuilder, green
from ...core.policies import Policy, Retry
from ...embedders import Embedder, View
from ...workers.pool import SlotPool
from .in_process import at_home


class EmbeddedSlot(Protocol):
    """A slot with pixels, and with room for their vectors or these already."""

    @property
    def timings(self) -> Timings: ...
    @property
    def view(self) -> View: ...


class EmbedBatch(Protocol):
    """Items on their way to the embedder, in a slot.

    Attributes:
        is_last: whether what is done with them now is not done again.
    """

    is_last: bool

    @property
    def refused(self) -> Mapping[int, Exception]:
        """Row -> why its item has failed already, where that was found out on the way."""
        ...

    def __len__(self) -> int: ...
    @property
    def lease(self) -> EmbeddedSlot:
        """The slot."""
        ...

    def failure(self, row: int, error: Exception) -> ItemFailure:
        """The item of a row could not be done."""
        ...


B = TypeVar("B", bound=EmbedBatch)
Take = Callable[[B, Container[int]], Any]
"""Makes rows of a batch, without the refused ones, and gives its slot back; `NOTHING` where none are left."""


def add_embedding(
    builder: PipelineBuilder, pool: SlotPool[Any, Any], embedder: Embedder, policy: Policy, take: Take[B]
) -> PipelineBuilder:
    """The graph so far, whose batches lie in slots of a pool, and are embedded there, in a greenlet or in a thread."""
    if embedder.runs == "worker":
        return builder.pipe(embedded_with(take), concurrency=pool.capacity, parallelism=pool.workers, name="embed")
    op = embed_with(embedder, policy, take)
    return builder.add_resource(embedder).pipe(
        green(op) if embedder.runs == "green" else op,
        concurrency=embedder.concurrency,
        name="embed",
        on_failure=policy,
    )


def embedded_with(take: Take[B]) -> Callable[[B], Outcome]:
    """The worker has embedded the batch already; this takes the vectors and accounts for the time."""

    @green
    def embedded(batch: B) -> Outcome:
        seconds, refused = batch.lease.timings.embed, batch.refused
        failures = [batch.failure(row, error) for row, error in refused.items()]
        return Outcome(take(batch, refused), failures=failures, seconds=seconds)

    return embedded


def embed_with(embedder: Embedder, policy: Policy, take: Take[B]) -> Callable[[B], Outcome]:
    """Embed batches here; rows that the embedder refuses are failures."""
    retries = isinstance(policy, Retry)

    def embed(batch: B) -> Outcome:
        run = embedder.attempt if retries and not batch.is_last else embedder.embed
        with at_home(embedder):
            refused = {**run(batch.lease.view, len(batch)), **batch.refused}
        failures = [batch.failure(row, error) for row, error in refused.items()]
        return Outcome(take(batch, refused), failures=failures)

    return embed
