"""Every face that uses worker processes may be left early, at any point, and then used again.

Contract: whatever ends a stream or a job early, all slots are free again afterwards (`conftest` looks, after every
test), and the next one on the same object does all it is given. What it cannot serve it refuses at once.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError, ImageEmbeddingPipeline, PipelineFailure, StreamingMultiprocessPreprocessor
from penstock.engine import Pipeline, PipelineBuilder, green
from penstock.engine.config.model import ServiceConfig
from penstock.engine.core.values import PlainValues
from penstock.engine.jobs.common.drive import Interrupt
from penstock.engine.jobs.images.entries import batches_of
from penstock.engine.jobs.images.inputs import pictures_of
from penstock.engine.jobs.images.preprocessed_batch import PreprocessedBatch
from penstock.engine.jobs.images.runner import JobRunner
from penstock.engine.workers import PreprocessPool, SlotBatch
from penstock.engine.workers.shared_fork_server import SharedForkServer
from penstock.preprocess import preset
from penstock.shm import Zygote
from penstock.tests.cut_short import failing, interrupted
from penstock.tests.slots import in_use
from penstock.tests.waiting import DEADLINE, wait_until

pytestmark = pytest.mark.slow

Stream = Iterator[PreprocessedBatch]


@pytest.fixture(scope="module")
def preprocessor() -> Iterator[StreamingMultiprocessPreprocessor]:
    """One for the module: a slot that one test loses is missed by the next."""
    with StreamingMultiprocessPreprocessor(num_workers=2, batch_size=4, image_size=32, queue_maxsize=4) as made:
        yield made


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageEmbeddingPipeline]:
    """Likewise."""
    store = str(tmp_path_factory.mktemp("store") / "photos.db")
    with ImageEmbeddingPipeline(to=store, workers=2, batch_size=4, image_size=32, embedder="gist:32") as made:
        yield made


def filled(preprocessor: StreamingMultiprocessPreprocessor) -> None:
    """Wait until batches lie in the sink that nobody has taken."""
    wait_until(lambda: preprocessor.report().stages[-1].in_flight > 0)


def all_made(preprocessor: StreamingMultiprocessPreprocessor) -> None:
    """Wait until a stream's engine has ended by itself: its last batches lie in the sink."""
    pipeline = preprocessor._pipeline  # pyright: ignore[reportPrivateUsage]
    assert pipeline is not None
    assert pipeline._runtime.join(DEADLINE)  # pyright: ignore[reportPrivateUsage]


# -- the stream -------------------------------------------------------------------------------------------------------


class Left(Exception):
    """Raised in the loop."""


def by_break(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    for _ in preprocessor.preprocess_stream(itertools.cycle(photos)):
        filled(preprocessor)
        break


def by_break_after_a_release(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    for batch in preprocessor.preprocess_stream(itertools.cycle(photos)):
        batch.release()
        filled(preprocessor)
        break


def by_an_exception(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    def read() -> None:
        for _ in preprocessor.preprocess_stream(itertools.cycle(photos)):
            filled(preprocessor)
            raise Left

    with suppress(Left):
        read()


def by_close(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    stream = preprocessor.preprocess_stream(itertools.cycle(photos))
    next(stream)
    filled(preprocessor)
    stream.close()


def by_forgetting_it(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    stream = preprocessor.preprocess_stream(itertools.cycle(photos))
    next(stream)
    filled(preprocessor)
    del stream
    gc.collect()


def when_all_has_been_made(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    """Its workers have nothing left to do, and its engine has ended by itself."""
    stream = preprocessor.preprocess_stream(photos[:8])
    next(stream)
    all_made(preprocessor)
    stream.close()


def by_ctrl_c(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    with interrupted(photos[:8]) as source:
        list(preprocessor.preprocess_stream(source))


def by_a_failing_source(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    with pytest.raises(PipelineFailure):
        list(preprocessor.preprocess_stream(failing(photos[:12])))


@pytest.mark.parametrize(
    "leave",
    [
        by_break,
        by_break_after_a_release,
        by_an_exception,
        by_close,
        by_forgetting_it,
        when_all_has_been_made,
        by_ctrl_c,
        by_a_failing_source,
    ],
    ids=lambda leave: leave.__name__,
)
def test_a_stream_that_is_left_early_gives_all_slots_back(
    leave: Callable[[StreamingMultiprocessPreprocessor, list[Path]], None],
    preprocessor: StreamingMultiprocessPreprocessor,
    photos: list[Path],
) -> None:
    """Twice, and then a whole one."""
    for _ in range(2):
        leave(preprocessor, photos)
        pool = preprocessor._pool  # pyright: ignore[reportPrivateUsage]
        assert pool is not None
        assert not in_use(pool)
    assert [id_ for batch in preprocessor.preprocess_stream(photos[:20]) for id_ in batch["ids"]] == list(range(20))


def test_a_second_stream_is_refused_while_the_first_lives(
    preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]
) -> None:
    """At once, with what to do; the first goes on undisturbed, and when it is closed the second may begin."""
    first = preprocessor.preprocess_stream(photos[:12])
    ids = list(next(first)["ids"])
    with pytest.raises(ConfigError, match="another stream, which has not ended"):
        next(preprocessor.preprocess_stream(photos[:4]))
    ids += [id_ for batch in first for id_ in batch["ids"]]
    assert ids == list(range(12))
    assert [batch["ids"] for batch in preprocessor.preprocess_stream(photos[:4])] == [[0, 1, 2, 3]]


def test_a_second_stream_is_refused_also_when_the_first_has_made_all_its_batches(
    preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]
) -> None:
    """They lie in slots that the second would wait for."""
    first = preprocessor.preprocess_stream(photos[:16])
    next(first)
    all_made(preprocessor)
    with pytest.raises(ConfigError, match="another stream"):
        next(preprocessor.preprocess_stream(photos[:4]))
    assert len(list(first)) == 3


@pytest.mark.parametrize("end", ["next", "forgotten", "close", "release"])
def test_a_batch_whose_memory_has_been_given_back_says_so(
    end: str, preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]
) -> None:
    """Its pixels are refused instead of those of another batch being shown; what was told of it stays."""
    stream = preprocessor.preprocess_stream(photos[:12])
    batch = next(stream)
    if end == "forgotten":
        del stream
    elif end == "next":
        next(stream)
    elif end == "close":
        stream.close()
    else:
        batch.release()
    with pytest.raises(RuntimeError, match="has given its memory back"):
        batch["preprocessed"]
    assert len(batch["ids"]) == 4
    with pytest.raises(KeyError):
        batch["pixels"]


@pytest.mark.holds_slots
def test_a_preprocessor_that_is_closed_ends_its_stream_and_can_be_used_again(photos: list[Path]) -> None:
    """A batch of the old stream that is given back late does not touch the slots of the new one."""
    with StreamingMultiprocessPreprocessor(num_workers=1, batch_size=4, image_size=32, queue_maxsize=2) as made:
        old = made.preprocess_stream(photos[:12])
        batch = next(old)
        pixels = batch["preprocessed"].copy()
        made.close()
        assert (batch["preprocessed"] == pixels).all()
        new = made.preprocess_stream(photos[:8])
        ids = list(next(new)["ids"])
        all_made(made)
        old.close()
        batch.release()
        pool = made._pool  # pyright: ignore[reportPrivateUsage]
        assert pool is not None
        assert in_use(pool) == {"ready": 2}
        assert ids + [id_ for batch in new for id_ in batch["ids"]] == list(range(8))


# -- the job ----------------------------------------------------------------------------------------------------------


def by_its_failing_source(pipeline: ImageEmbeddingPipeline, way: str, photos: list[Path]) -> None:
    with pytest.raises(PipelineFailure):
        getattr(pipeline, way)(failing(photos[:12]))


def by_its_ctrl_c(pipeline: ImageEmbeddingPipeline, way: str, photos: list[Path]) -> None:
    with interrupted(photos[:12]) as source:
        getattr(pipeline, way)(source)


@pytest.mark.parametrize("face", ["stream", "insert"])
def test_ctrl_c_while_workers_start_does_not_wait_for_them(
    face: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their fork server imports something for ever; no process of it stays."""
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    (tmp_path / "never.py").write_text(f"open({str(fifo)!r}).read()")
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    server, zygotes = SharedForkServer(["never"], dict), list[Zygote]()
    acquire = server.acquire

    def noted() -> Zygote:
        zygotes.append(acquire())
        return zygotes[-1]

    monkeypatch.setattr(server, "acquire", noted)
    monkeypatch.setattr("penstock.engine.workers.pictures.PICTURE_SERVER", server)
    over = threading.Event()

    def interrupt() -> None:
        with fifo.open("w"):  # opened by the import: a worker is waited for now
            os.kill(os.getpid(), signal.SIGINT)
            over.wait()

    def start() -> None:
        if face == "stream":
            StreamingMultiprocessPreprocessor(num_workers=1, image_size=32).start()
            return
        with ImageEmbeddingPipeline(to=str(tmp_path / "photos.db"), workers=1) as made:
            made.create_collection()  # so that nothing but the workers is waited for
            made.insert_images_streaming([b""])

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        over.set()
        thread.join()
    assert [zygote.pid for zygote in zygotes] == [0]


@pytest.mark.parametrize("way", ["insert_images", "insert_images_async", "insert_images_streaming"])
@pytest.mark.parametrize("leave", [by_its_failing_source, by_its_ctrl_c], ids=lambda leave: leave.__name__)
def test_a_call_that_ends_early_gives_all_slots_back(
    leave: Callable[[ImageEmbeddingPipeline, str, list[Path]], None],
    way: str,
    pipeline: ImageEmbeddingPipeline,
    photos: list[Path],
) -> None:
    """Twice, and then a whole one through the same pipeline."""
    for _ in range(2):
        leave(pipeline, way, photos)
    ids = getattr(pipeline, way)(photos[:12])
    assert len(ids) == 12
    assert None not in ids


def test_a_job_that_is_interrupted_gives_all_slots_back(photos: list[Path], tmp_path: Path) -> None:
    """What is in flight is finished; then a whole one by the same runner."""
    interrupt = Interrupt()
    config = ServiceConfig(to=f"{tmp_path}/a.db", workers=2, batch_size=4, image_size=32, embedder="gist:32")

    def batches(inputs: Iterable[Any]) -> Iterator[Any]:
        return batches_of(pictures_of(inputs, None, None, "stream"), 4)

    def source() -> Iterator[Any]:
        for number, photo in enumerate(itertools.cycle(photos)):
            if number == 12:
                interrupt.request()
            yield photo

    with closing(JobRunner(config)) as runner:
        report = runner.stream(batches(source()), interrupt=interrupt)
        assert report.accounting.written == report.accounting.read
        assert runner.stream(batches(photos[:12])).accounting.written == 12


def test_a_second_job_is_refused_while_the_first_runs(pipeline: ImageEmbeddingPipeline, photos: list[Path]) -> None:
    """From another thread, or from the inputs of the first, which goes on undisturbed; whatever the batch size."""
    refused: list[BaseException] = []

    def source() -> Iterator[Path]:
        yield photos[0]
        for size in (4, 2):
            try:
                pipeline.insert_images_streaming(photos[:4], batch_size=size)
            except ConfigError as error:
                refused.append(error)
        yield photos[1]

    assert len(pipeline.insert_images_streaming(source())) == 2
    assert ["serve another call" in str(error) for error in refused] == [True, True]
    assert len(pipeline.insert_images_streaming(photos[:4])) == 4


# -- the pool itself --------------------------------------------------------------------------------------------------


class Slots(PlainValues):
    """Values that are batches in slots."""

    def discard(self, value: Any) -> None:
        if isinstance(value, SlotBatch):
            value.release()


def test_a_graph_of_ones_own_on_a_pool_gives_all_slots_back(photos: list[Path]) -> None:
    """Stopped in the middle, with batches on the way and in the sink; twice, and then one to its end."""
    with PreprocessPool(preset("clip", size=32), workers=2, batch_size=2, slots=2) as pool:

        @green
        def preprocess(photo: Path) -> SlotBatch:
            return pool.process([str(photo)])

        def graph(source: Iterable[Path]) -> Pipeline:
            builder = PipelineBuilder(values=Slots()).add_source(source).add_resource(pool)
            return builder.pipe(preprocess, concurrency=pool.capacity).add_sink(2).build(num_threads=1)

        for _ in range(2):
            with graph(itertools.cycle(photos)).auto_stop(discard=True) as pipeline:
                pipeline.get_item().release()
                wait_until(lambda pipeline=pipeline: pipeline.report().stages[-1].in_flight == 2)  # type: ignore[misc]
            assert not in_use(pool)
        for batch in graph(photos[:12]):
            assert len(batch) == 1
            batch.release()
