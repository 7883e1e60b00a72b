"""The stores of a pipeline, by collection: opened when first needed, closed together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from ....sinks import Found, Sink
from ...config.model import ServiceConfig
from .plan import Plan
from .provenance import check_recipe, check_version, other_version, recipe_of
from .sink_factory import job_sink, sink_to_read
from .store_check import with_id

_logger = logging.getLogger(__name__)


class SinkCache:
    """Those that are written to, and those that are only read."""

    def __init__(self) -> None:
        self._written: dict[str, Sink] = {}
        self._read: dict[str, Sink] = {}
        self._looked: list[Sink] = []

    def to_write(self, config: ServiceConfig, plan: Plan, name: str, dimension: Callable[[], int]) -> Sink:
        """A collection, made if it is not there.

        Args:
            config: of the job.
            plan: what makes the vectors; another recipe is refused, another version of the pixels unless accepted.
            name: of the collection.
            dimension: floats of a vector; asked when it is needed.
        """
        if name not in self._written:
            sink = job_sink(config, name, dimension(), with_id(recipe_of(plan)))
            check = partial(check_version, collection=name, accepted=config.accept_changes)
            self._written[name] = _opened(sink, plan, name, check)
        return self._written[name]

    def to_read(self, config: ServiceConfig, plan: Plan | None, name: str) -> Sink:
        """A collection that must be there already: asking for one does not make it. Without a plan any recipe goes."""
        sink = self._written.get(name, self._read.get(name))
        if sink is None:
            sink = self._read[name] = _opened(sink_to_read(config, name), plan, name, partial(_warn, name))
        return sink

    def to_wait(self, config: ServiceConfig, plan: Plan, name: str) -> Iterator[tuple[Sink, float]]:
        """Each store whose index is to be waited for, open, and for how many seconds."""
        written = self._written.get(name)
        for number, store in enumerate(config.stores):
            seconds = store.config.wait_index
            if seconds is None:
                continue
            if written:
                yield written.members[number], seconds
                continue
            own = store.config.collection if name == config.collection else name
            check = partial(_warn, own)
            sink = self._read[f"{name} {number}"] = _opened(sink_to_read(store.config, own), plan, own, check)
            yield sink, seconds

    def reach(self, config: ServiceConfig, name: str) -> None:
        """Refuse to go on where the store is a server and nobody listens there, before anything is started."""
        if name not in self._written:
            job_sink(config, name).reach()

    def look(self, config: ServiceConfig, name: str) -> dict[int, Found | None]:
        """What a collection holds in each store by its number, without making it; None where there is none.

        A store that keeps no rows is left out.
        """
        sink = job_sink(config, name)
        self._looked.append(sink)  # stays connected: a Milvus Lite that is started for it serves the job, too
        return {number: member.look() for number, member in enumerate(sink.members) if member.keeps_rows}

    def finish(self) -> None:
        """Show what was written to others, where that is a step of its own."""
        for sink in self._written.values():
            sink.finish()

    def close(self) -> None:
        """Close all; one that does not close does not keep the others open. Idempotent."""
        with ExitStack() as stack:
            for sink in (*self._read.values(), *self._written.values(), *self._looked):
                stack.callback(sink.close)
        self._read.clear()
        self._looked.clear()
        self._written.clear()


def _opened(sink: Sink, plan: Plan | None, name: str, check_version: Callable[[str], None]) -> Sink:
    try:
        sink.open()
        for member in sink.members:
            if plan is not None:
                check_recipe(member.note, plan, name)
            check_version(member.note)
    except BaseException:
        sink.close()
        raise
    return sink


def _warn(name: str, recipe: str) -> None:
    """Searching is possible all the same: most pictures have the same pixels in all versions."""
    if other := other_version(recipe):
        _logger.warning("collection %r holds %s: some pictures may be found worse, or not at all", name, other)
