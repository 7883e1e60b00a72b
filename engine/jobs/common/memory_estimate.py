"""How much memory a job can take at most: computed from its settings before anything starts.

Rings, canvases and vectors that wait are known to the byte; a worker's share follows the largest picture that is
allowed; interpreters with their libraries are constants, measured with a quarter on top (``python -m penstock.bench
soak``). What nobody can know is left out and named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ....formatting import plural, size
from ....preprocess.slot_layout import dimension_of, pixel_layout
from ....preprocess.videos import VideoLimits
from ....preprocess.worker.memory import FORK_SERVER_BYTES, video_worker_bytes, worker_bytes
from ....shm import SlotLayout
from ....sinks import Sink
from ...config.model import ServiceConfig
from ...config.videos import VideoConfig
from ...machine.resources import usable_cores
from ...sources import SourceMemory
from .plan import Plan
from .sink_factory import job_sink

Side = Literal["parent", "workers", "store"]
"""Whose processes a part of the memory belongs to."""

_MIB: Final = 2**20

_PARENT_BYTES: Final = 200 * _MIB
"""The job's own process: interpreter, gevent, pymilvus or pyarrow, a listing of a folder (measured: 150-160 MiB)."""

_PAGE_BYTES: Final = 100 * _MIB
"""What drawing the plots of a report in HTML takes besides."""

_PICTURE_BYTES: Final = 2048
"""A picture on its way without its pixels: path, keys, a row's columns."""

_METADATA_BYTES: Final = 64 * 1024
"""The most metadata that a row may have."""

_ENTRY_BYTES, _LETTER_BYTES = 2, 512
"""Of a job's books: an entry, while they are opened; a dead letter, whose attempts are kept."""

_DIMENSION: Final = 4096
"""Floats of a vector where the embedder tells only once it is open: more than any usual model's."""

_CALLS: Final = 8
"""To the store at once, where nobody has said yet which."""

_COPIES: Final = 3
"""Of the rows of one call to the store: joined, as a message, and as the library below keeps it."""


_NOTHING: Final = SourceMemory()


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the memory of a job.

    Attributes:
        name: what it is.
        nbytes: of one of them.
        side: whose processes have it.
        count: how many there are.
    """

    name: str
    nbytes: int
    side: Side
    count: int = 1

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return self.count * self.nbytes

    def __str__(self) -> str:
        number = f"{self.count} {self.name}s x" if self.count > 1 else self.name
        return f"{number} {size(self.nbytes)}"


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The most memory a job takes.

    Attributes:
        parts: what it consists of.
        uncounted: what is not in it, in words.
        limit: what ``memory`` allows, in bytes; None: nothing was said.
        settings: what the figure was computed for: workers, batch_size, insert_batch_size, slots.
        lowered: of these, what was made smaller to fit, in words.
        cramped: where ``/dev/shm`` is why, a sentence that says so; else empty.
    """

    parts: tuple[Part, ...]
    uncounted: tuple[str, ...]
    limit: int | None
    settings: Mapping[str, int]
    lowered: tuple[str, ...] = ()
    cramped: str = ""

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(part.total for part in self.parts)

    def of(self, side: Side) -> int:
        """Bytes that these processes may take."""
        return sum(part.total for part in self.parts if part.side == side)

    @property
    def rings(self) -> int:
        """Bytes of them that are shared memory."""
        return sum(part.total for part in self.parts if part.name == "ring")

    def brief(self) -> str:
        """The figure alone: ``at most 1.9 GiB with 2 workers``."""
        return f"at most {size(self.total)} with {plural(self.settings['workers'], 'worker')}"

    def __str__(self) -> str:
        """In a line: ``at most 1.9 GiB (of 4.0 GiB): parent 200 MiB, 2 workers x 310 MiB, ...``."""
        allowed = f" (of {size(self.limit)})" if self.limit is not None else ""
        lowered = f"; to fit: {', '.join(self.lowered)}" if self.lowered else ""
        besides = f"; not counted: {', '.join(self.uncounted)}" if self.uncounted else ""
        return f"at most {size(self.total)}{allowed}: {', '.join(map(str, self.parts))}{lowered}{besides}"

    def table(self) -> str:
        """A line for each part, the largest first."""
        ordered = sorted(self.parts, key=lambda part: -part.total)
        return "\n".join(f"{size(part.total):>10}  {part if part.count > 1 else part.name}" for part in ordered)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a report."""
        return {
            "bytes": self.total,
            "limit": self.limit,
            "parts": {part.name: part.total for part in self.parts},
            "uncounted": list(self.uncounted),
            **self.settings,
        }


def estimate_memory(
    plan: Plan, config: ServiceConfig, entries: int | None = None, letters: int = 0, source: SourceMemory = _NOTHING
) -> MemoryEstimate:
    """The most memory that a job takes in worker processes, in this one, and in a store that is its own.

    Args:
        plan: what makes the vectors.
        config: settings; workers, slots and sizes that it leaves open are as a job would choose them.
        entries: how many its books have; None where it keeps none.
        letters: dead letters in them.
        source: what reading takes.
    """
    workers = config.workers or usable_cores()
    slots = plan.slots(config, workers)
    layout = layout_of(plan, config.batch_size)
    sink = job_sink(config) if config.to else None
    rows = sink.rows_per_write(config.insert_batch_size) if sink else config.insert_batch_size
    calls = sink.writes_at_once(rows) if sink else _CALLS
    shared: list[Part] = [
        Part("parent", _parent_bytes(config), "parent"),
        Part("rows", _waiting_bytes(plan, config, workers * slots, rows, calls, source.has_metadata), "parent"),
        Part("fork server", FORK_SERVER_BYTES, "workers"),
        Part("worker", _worker_bytes(plan, config), "workers", workers),
        Part("ring", layout.ring_bytes(slots), "workers", workers),
    ]
    if entries is not None:
        shared.append(Part("books", _ENTRY_BYTES * entries + _LETTER_BYTES * letters, "parent"))
    if source.nbytes:
        shared.append(Part("source", source.nbytes, "parent"))
    store, uncounted = _store(sink, dimension_of(layout), entries or 0), list(source.uncounted)
    model = _model(plan, config, workers)
    if model is None:
        where = "each worker" if plan.embedder.runs == "worker" else "the parent"
        uncounted.append(f"what {plan.embedder.name} takes in {where}")
    if store is not None and entries is None:
        uncounted.append(f"the rows of {store.name}")
    elif store is not None and sink and sink.local_path and sink.local_path.exists():
        uncounted.append("rows of others in the store")
    settings = {"workers": workers, "batch_size": config.batch_size, "insert_batch_size": rows, "slots": slots}
    parts = (*shared, *(part for part in (model, store) if part is not None))
    return MemoryEstimate(parts, tuple(uncounted), config.memory, settings)


def _worker_bytes(plan: Plan, config: ServiceConfig) -> int:
    if isinstance(config, VideoConfig):
        most = config.max_pixels or VideoLimits().max_pixels
        return video_worker_bytes(plan.spec, config.batch_size, most)
    return worker_bytes(plan.spec, config.batch_size, config.threads)


def layout_of(plan: Plan, rows: int) -> SlotLayout:
    """A slot of the rings, as it will be; with room for long vectors where nobody knows yet how long they are."""
    spec, embedder = plan.spec, plan.embedder
    dimension = embedder.dimension if embedder.knows_dimension else _DIMENSION
    return pixel_layout(rows, spec.pixel_shape(), spec.pixel_dtype().name, dimension)


def _parent_bytes(config: ServiceConfig) -> int:
    return _PARENT_BYTES + (_PAGE_BYTES if any(path.suffix == ".html" for path in config.report) else 0)


def _waiting_bytes(plan: Plan, config: ServiceConfig, slots: int, rows: int, calls: int, has_metadata: bool) -> int:
    """Pictures and vectors between the source and the store, everywhere they can be at once; see ``graphs``."""
    embedding = slots if plan.embedder.runs == "worker" else plan.embedder.concurrency
    group = rows + config.batch_size
    one = _PICTURE_BYTES + (_METADATA_BYTES if has_metadata or config.metadata is not None else 0)
    vector = 4 * dimension_of(layout_of(plan, 1))
    before = (8 + slots + 2 + embedding) * config.batch_size
    behind = (embedding + 3) * config.batch_size + (1 + 2 + calls) * group
    return (before + behind + 8 * group) * one + (behind + _COPIES * calls * group) * vector


def _model(plan: Plan, config: ServiceConfig, workers: int) -> Part | None:
    nbytes = plan.embedder.memory(plan.spec, config.batch_size)
    if nbytes is None:
        return None
    in_worker = plan.embedder.runs == "worker"
    return Part("model", nbytes, "workers" if in_worker else "parent", workers if in_worker else 1)


def _store(sink: Sink | None, dimension: int, entries: int) -> Part | None:
    """What the sink takes on this machine: Milvus Lite runs beside the job, a folder is put in order at its end."""
    found = sink.memory(dimension, entries) if sink else None
    return Part(found.name, found.nbytes, "store" if found.own_process else "parent") if found else None
