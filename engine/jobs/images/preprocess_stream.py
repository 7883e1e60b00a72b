"""``StreamingMultiprocessPreprocessor``: the first half of the main job alone. Pictures in, batches of pixels out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from ....errors import ConfigError
from ....preprocess.presets import preset
from ...machine.resources import shared_memory_room, usable_cores
from ...workers.picture_server import warm_start
from ..common.largest import cramped, halves, largest, lowered, tell_cramped, tell_workers
from .preprocessed_batch import BatchValues, Input, PreprocessedBatch, input_batches

# All else is imported once the workers' fork server is starting: both go on at once then.
if TYPE_CHECKING:
    from ....preprocess import PreprocessSpec
    from ... import Outcome, Pipeline, Report
    from ...workers import PreprocessPool

_NEEDED_NEXT = ("...pipeline.builder", ".inputs")
"""What the first stream needs: imported before the workers are waited for, and not after."""

_BATCH_SIZE, _QUEUE_MAXSIZE = 32, 10
"""Where nothing is said, and ``/dev/shm`` has room."""


class StreamingMultiprocessPreprocessor:
    """Preprocess pictures in worker processes; batches arrive through shared memory, in input order.

    Use it as a context manager; the workers stay warm from one stream to the next until it is closed. Made for
    thousands of pictures and more: starting costs 1-2 s, 0.2-0.5 s once the compilation cache is warm.

    Args:
        num_workers: worker processes; default: the cores this process may use.
        batch_size: the most pictures in a batch; default: 32, or fewer where ``/dev/shm`` has less room.
        image_size: side of the output in pixels, or the pair ``(side, side)``.
        queue_maxsize: batches that may be finished or in the making at once; default: 10, or fewer likewise. Shared
            memory in all: about ``queue_maxsize * batch_size * bytes per picture``.
        preset: ``imagenet``, ``clip``, ``siglip`` or ``dinov2``.
        dtype: ``float32``, ``float16`` or ``uint8``.
        layout: ``NCHW`` or ``NHWC``.
        transform: a JAX function of your own (or ``"module:function"``) from one picture, float32 ``[side, side, 3]``
            of 0..255, to an array of fixed shape, in place of normalization, dtype and layout.
        spec: a whole specification, instead of the five above.
        threads: reads each worker has in flight when storage is slow.
        devices: accelerators for the workers, e.g. ``[0, 1]``.
        item_timeout: seconds one picture may take.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        batch_size: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        queue_maxsize: int | None = None,
        *,
        preset: str | None = None,
        dtype: str | None = None,
        layout: str | None = None,
        transform: str | Callable[..., Any] | None = None,
        spec: PreprocessSpec | None = None,
        threads: int | None = None,
        devices: Sequence[int] | None = None,
        item_timeout: float = 30.0,
    ) -> None:
        sizes: dict[str, object] = {
            "num_workers": num_workers,
            "batch_size": batch_size,
            "queue_maxsize": queue_maxsize,
        }
        for name, value in sizes.items():
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ConfigError(f"{name}={value!r} must be a whole number of at least 1")
        self.spec = spec or _spec(image_size, preset, dtype, layout, transform)
        if self.spec.decoder != "pillow":
            from ....preprocess.decode.jpeg import check_decoder

            check_decoder(self.spec)  # now rather than at the start
        self._sizes_asked = (num_workers, batch_size, queue_maxsize)
        self._settings: dict[str, Any] = {"threads": threads, "devices": devices, "item_timeout": item_timeout}
        self._pool: PreprocessPool | None = None
        self._pipeline: Pipeline | None = None  # of the last stream
        self._stream: Pipeline | None = None  # of the one that lives
        self._lock = threading.RLock()  # of starting: a pool, or a stream

    @property
    def batch_size(self) -> int:
        """The most pictures in a batch."""
        return self._sizes[1]

    @cached_property
    def _sizes(self) -> tuple[int, int, int]:
        return _fitted(self.spec, *self._sizes_asked)

    def _prepared(self) -> PreprocessPool:
        """The pool. The workers' fork server imports JAX meanwhile."""
        with self._lock, warm_start():
            from ...workers import PreprocessPool

            if self._pool is None:
                workers, batch_size, slots = self._sizes
                tell_workers(workers)
                self._pool = PreprocessPool(
                    self.spec, workers=workers, batch_size=batch_size, slots=slots, **self._settings
                )
            self._pool.prepare()
            for name in _NEEDED_NEXT:
                import_module(name, __package__)
        return self._pool

    def start(self) -> None:
        """Start the workers, if they are not running yet. Returns before their kernels are compiled.

        Raises:
            WorkerStartError: a worker cannot start.
            SharedMemoryFullError: /dev/shm has no room for the rings.
        """
        with self._lock:
            self._prepared().start()

    def close(self) -> None:
        """End a running stream and the workers; give the shared memory back. Idempotent."""
        stream, self._stream = self._stream, None
        try:
            if stream:
                stream.stop(discard=True)
        finally:
            if self._pool:
                self._pool.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers; 0 for one that is not there now. None before the first start."""
        return self._pool.pids if self._pool else []

    def report(self) -> Report:
        """The current stream's figures, or those of the last one.

        Raises:
            RuntimeError: nothing has been streamed yet.
        """
        if self._pipeline is None:
            raise RuntimeError("nothing has been streamed yet: there is nothing to report")
        return self._pipeline.report()

    def preprocess_stream(
        self,
        inputs: Iterable[Any],
        ids: Iterable[Any] | None = None,
        metadata: Iterable[Any] | None = None,
        batch_size: int | None = None,
    ) -> Generator[PreprocessedBatch, None, None]:
        """Preprocess pictures; one stream at a time. It may be left at any point, and the next one begun.

        Args:
            inputs: paths, bytes of picture files, PIL images or pixel arrays; read lazily, may be endless.
            ids: one per input; default: 0, 1, 2...
            metadata: one per input; default: None each.
            batch_size: pictures in a batch, at most the one this preprocessor was made with, which is the default.

        Yields:
            Batches in input order. Each is valid until the next one is asked for, or the stream is closed.

        Raises:
            ConfigError: ``batch_size`` is out of range, or ids or metadata are not as many as the inputs; or another
                stream has not ended.
            PipelineFailure: the workers cannot go on.
        """
        if batch_size and not 1 <= batch_size <= self.batch_size:
            raise ConfigError(
                f"batch_size={batch_size} must be 1..{self.batch_size}, the one this preprocessor was made with"
            )
        pool = self._prepared()
        import numpy as np

        from ... import Outcome, PipelineBuilder, green
        from .inputs import in_step

        rows = in_step(inputs, ids, metadata, "preprocess_stream")

        @green
        def preprocess(batch: list[Input]) -> Outcome:
            slot = pool.process([item.source for item in batch])
            return Outcome(PreprocessedBatch(slot, batch, empty), seconds=slot.timings.total)

        pipeline = (
            PipelineBuilder(values=BatchValues())
            .add_source(input_batches(rows, batch_size or self.batch_size, numbered=ids is None))
            .pipe(preprocess, concurrency=pool.capacity, output_order="input")
            .add_resource(pool)
            .add_sink(pool.capacity)
            .build(num_threads=1)
        )
        self._begin(pipeline)
        try:
            empty = np.empty((0, *pool.pixels.shape), pool.pixels.dtype)
            with pipeline.auto_stop(discard=True):
                for batch in pipeline:
                    try:
                        yield batch
                    finally:
                        batch.release()
        finally:
            if self._stream is pipeline:
                self._stream = None

    def _begin(self, stream: Pipeline) -> None:
        """The workers are this stream's from now on."""
        with self._lock:
            if self._stream is not None:
                raise ConfigError(
                    "this preprocessor serves another stream, which has not ended: read it to its end or close() it "
                    "first, or make a second preprocessor"
                )
            self.start()
            self._pipeline = self._stream = stream

    def preprocess_batch_sync(
        self,
        inputs: Iterable[Any],
        ids: Iterable[Any] | None = None,
        metadata: Iterable[Any] | None = None,
        batch_size: int | None = None,
    ) -> dict[str, Any]:
        """Preprocess all inputs and wait: one dict like those of ``preprocess_stream``, whose arrays are the caller's
        own.

        Raises:
            ConfigError: as ``preprocess_stream``.
            PipelineFailure: the workers cannot go on.
        """
        import numpy as np

        result: dict[str, list[Any]] = {"preprocessed": [], "ids": [], "metadata": [], "errors": []}
        for batch in self.preprocess_stream(inputs, ids, metadata, batch_size):
            result["preprocessed"].append(np.array(batch["preprocessed"]))
            for name in ("ids", "metadata", "errors"):
                result[name].extend(batch[name])
        pixels = self._prepared().pixels
        parts = result["preprocessed"] or [np.empty((0, *pixels.shape), pixels.dtype)]
        return {**result, "preprocessed": np.concatenate(parts)}


def _fitted(
    spec: PreprocessSpec, workers: int | None, batch_size: int | None, queued: int | None
) -> tuple[int, int, int]:
    """Workers, batch size and slots that ``/dev/shm`` has room for; what is given stays as it is."""
    from ....preprocess.slot_layout import pixel_layout

    shape = spec.replace(transform=None)  # what a transform makes is known in a worker: float32 is a good guess

    def rings(settings: Mapping[str, int]) -> int:
        layout = pixel_layout(settings["batch_size"], shape.pixel_shape(), shape.pixel_dtype().name)
        return settings["workers"] * layout.ring_bytes(settings["slots"])

    count, size = workers or usable_cores(), batch_size or _BATCH_SIZE
    slots = max(2, -(-(queued or _QUEUE_MAXSIZE) // count))
    options = {
        "workers": [count] if workers else list(range(count, 0, -1)),
        "batch_size": [size] if batch_size else halves(size, 1),
        "slots": [slots] if queued else list(range(slots, 0, -1)),
    }
    wanted = {name: values[0] for name, values in options.items()}
    room = shared_memory_room()
    chosen = largest(options, lambda settings: rings(settings) <= room) or wanted  # refused when it starts
    if smaller := lowered(options, chosen):
        tell_cramped(cramped(rings(wanted), room, smaller))
    return chosen["workers"], chosen["batch_size"], chosen["slots"]


def _spec(
    image_size: int | tuple[int, int] | None,
    name: str | None,
    dtype: str | None,
    layout: str | None,
    transform: str | Callable[..., Any] | None,
) -> PreprocessSpec:
    changes: dict[str, Any] = {"dtype": dtype, "layout": layout, "size": _side(image_size)}
    if transform is not None and not isinstance(transform, str):
        from .inputs import reference_to

        transform = reference_to(transform)
    if transform is not None:
        changes["transform"] = transform
    return preset(name or "imagenet", **{key: value for key, value in changes.items() if value is not None})


def _side(size: int | tuple[int, int] | None) -> int | None:
    if not isinstance(size, tuple):
        return size
    if len(set(size)) != 1:
        raise ConfigError(f"image_size={size} must be square: give one number, or the same number twice")
    return size[0]
