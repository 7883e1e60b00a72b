"""Pictures that come as bytes or arrays: batches bounded in bytes, and what is too much for a message beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import numpy as np
import psutil
import pytest

from penstock import ImageEmbeddingPipeline, ServiceConfig, StreamingMultiprocessPreprocessor
from penstock.engine import NOTHING
from penstock.engine.jobs.common.autosize import fit_to_memory
from penstock.engine.jobs.common.memory_estimate import estimate_memory
from penstock.engine.jobs.common.payloads import BATCH_BYTES, grouped, with_payloads
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.images.batches import Batch, Picture
from penstock.engine.jobs.images.entries import batches_of
from penstock.engine.jobs.images.inputs import batched
from penstock.engine.sources import Filtered, Item
from penstock.engine.workers import PreprocessPool
from penstock.errors import ConfigError, ReadError, SharedMemoryFullError
from penstock.preprocess import Source, preset
from penstock.preprocess.worker.protocol import decode_task, encode_task
from penstock.shm import Payload, map_payload
from penstock.tests.waiting import DEADLINE

MIB = 2**20


def sheet(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An array that looks like so many bytes, and has one."""
    return np.broadcast_to(np.uint8(7), (nbytes // 1024, 1024))


# -- batches ----------------------------------------------------------------------------------------------------------


def test_values_are_grouped_by_number_and_by_size() -> None:
    """What is larger than a group may be is alone; nothing waits for a group that is full."""
    assert [*grouped([1, 1, 1, 1, 1], 2, lambda value: value, 9)] == [[1, 1], [1, 1], [1]]
    assert [*grouped([4, 5, 1, 20, 1, 3, 3, 3], 9, lambda value: value, 9)] == [[4, 5], [1], [20], [1, 3, 3], [3]]


@pytest.mark.parametrize("cut", [batched, lambda *how: (one.value for one in batches_of(*how))])
def test_batches_are_cut_by_bytes_and_paths_count_nothing(cut: Callable[..., Iterator[Batch]]) -> None:
    third = sheet(BATCH_BYTES // 3)
    sources: list[Source] = ["a.jpg", third, third, third, third, "b.jpg", bytes(8), sheet(2 * BATCH_BYTES), "c.jpg"]
    pictures = [Picture(str(number), number, source) for number, source in enumerate(sources)]
    cuts = [[picture.id for picture in batch.pictures] for batch in cut(pictures, 32)]
    assert cuts == [[0, 1, 2, 3], [4, 5, 6], [7], [8]]


def test_what_passes_by_stays_with_its_batch() -> None:
    outcomes = [*batches_of([Filtered("a", "no"), Item("b", "/b.jpg"), Filtered("c", "no"), Item("d", "/d.jpg")], 1)]
    assert [(len(one.value.pictures), one.dropped) for one in outcomes] == [(1, 1), (1, 1)]


def test_what_passes_by_is_accounted_for_before_there_is_a_batch() -> None:
    outcomes = [*batches_of([Filtered(str(number), "no") for number in range(1030)], 32)]
    assert [(one.value, one.dropped) for one in outcomes] == [(NOTHING, 1024), (NOTHING, 6)]


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1024, 3 * MIB])
def test_a_task_arrives_as_it_was_sent_in_its_message_or_beside_it(nbytes: int) -> None:
    """Paths, bytes, arrays and errors in any order; much data is not in the frame."""
    array = np.arange(nbytes, dtype=np.uint8).reshape(-1, 1024)
    sources: list[Source] = [b"file", "a.jpg", array, ReadError("gone"), array.T, "b\udcff.jpg", b""]
    message = encode_task(3, 4, sources)
    frame = b"".join(message.frame)
    assert bool(message.payload) == (nbytes > MIB)
    assert len(frame) < MIB
    payload = Payload(message.payload)
    found = decode_task(frame, map_payload(os.dup(payload.fd)) if message.payload else None)
    payload.close()
    assert (found.slot, found.generation) == (3, 4)
    assert [type(one) for one in found.sources] == [memoryview, str, np.ndarray, ReadError, np.ndarray, str, memoryview]
    assert (found.sources[0], found.sources[1], str(found.sources[3])) == (b"file", "a.jpg", "gone")
    assert (found.sources[5], found.sources[6]) == ("b\udcff.jpg", b"")
    np.testing.assert_array_equal(found.sources[2], array)
    np.testing.assert_array_equal(found.sources[4], array.T)


def test_samples_that_do_not_lie_in_order_are_brought_into_it_off_the_hub() -> None:
    """As channels that are reversed (BGR) do: a copy of a large picture takes a tenth of a second."""
    turned = np.zeros((1024, 1024, 3), np.uint8)[:, :, ::-1]
    (piece,) = [piece for piece in encode_task(0, 1, [turned]).payload if isinstance(piece, np.ndarray)]
    assert np.shares_memory(piece, turned)
    payload = Payload([piece])
    assert len(map_payload(os.dup(payload.fd))) == turned.nbytes
    payload.close()


def test_no_path_makes_a_message_too_long() -> None:
    """One that is longer than any system takes is that item's error."""
    found = decode_task(b"".join(encode_task(0, 1, ["/" + "a" * 2**20, "b.jpg"]).frame))
    assert str(found.sources[0]).endswith("is not a possible file name: it has 1,048,577 bytes")
    assert found.sources[1] == "b.jpg"


def test_a_payload_that_cannot_be_had_says_so_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(12, "Cannot allocate memory")

    before = psutil.Process().num_fds()
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SharedMemoryFullError, match="4 bytes of items cannot be handed to a worker: Cannot allocate"):
        Payload([b"abcd"])
    monkeypatch.undo()
    assert psutil.Process().num_fds() == before


# -- whole batches ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_batch_of_more_than_a_gibibyte_is_done_like_any_other() -> None:
    """Photographs of 12 megapixels as arrays; while they are copied the hub goes on."""
    photo = np.zeros((3000, 4000, 3), np.uint8)
    with PreprocessPool(preset("clip", size=32), workers=1, batch_size=32, slots=1) as pool:
        pool.start_in_hub()
        with gevent.Timeout(DEADLINE):
            batch = pool.process([photo] * 32)
        assert (len(batch.rows), batch.failures) == (32, [])
        batch.release()
        pool.stop_in_hub()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["insert_images", "insert_images_async", "insert_images_streaming"])
def test_a_picture_over_a_limit_costs_only_itself(way: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gibibytes that nobody copies; its letter names the setting. Its neighbours are rows."""
    inputs = [sheet(40_000), np.broadcast_to(np.uint8(7), (30_000, 25_000, 3)), bytes(2 * MIB), sheet(50_000)]
    config = ServiceConfig(
        to=f"bulk:{tmp_path / 'rows'}", workers=1, batch_size=4, embedder="gist:32", max_file_bytes=MIB
    )
    with ImageEmbeddingPipeline(config) as pipeline:
        assert getattr(pipeline, way)(inputs, ids=range(4)) == [0, None, None, 3]
        assert [failure.error for failure in pipeline.failures] == ["TooLargeError", "TooLargeError"]
        pixels, file = [failure.message for failure in pipeline.failures]
    assert "750000000 pixels are over max_pixels=64000000" in pixels
    assert "max_file_bytes allows 1048576" in file


@pytest.mark.slow
def test_a_stream_of_large_arrays_comes_in_order_in_smaller_batches() -> None:
    large = sheet(BATCH_BYTES // 2)
    with StreamingMultiprocessPreprocessor(num_workers=2, batch_size=8, image_size=32) as preprocessor:
        ids = [batch["ids"] for batch in preprocessor.preprocess_stream([large] * 5)]
    assert ids == [[0, 1], [2, 3], [4]]


# -- memory -----------------------------------------------------------------------------------------------------------


def test_the_ceiling_counts_pictures_in_memory_and_they_are_made_to_fit() -> None:
    """Without a limit 64 MiB a batch; else what is left for each, as far as that is anything."""
    config = ServiceConfig(to="p.db", workers=2, slots=3, batch_size=4)
    plan = make_plan(config)
    files = estimate_memory(plan, config)
    ceiling, most = with_payloads(files)
    batches = 5 + 2 * (3 + 2)
    assert (most, ceiling.total - files.total) == (BATCH_BYTES, batches * BATCH_BYTES)
    limited = estimate_memory(plan, config.model_copy(update={"memory": files.total + batches * 10 * MIB}))
    ceiling, most = with_payloads(limited)
    assert most == 10 * MIB
    assert ceiling.total <= files.total + batches * 10 * MIB
    assert with_payloads(estimate_memory(plan, config.model_copy(update={"memory": 1})))[1] == MIB


def test_settings_are_made_smaller_until_pictures_in_memory_have_room_too() -> None:
    """A limit is one of all that the job takes; what leaves no room for them is refused as too little memory."""
    wanted = ServiceConfig(to="p.db", workers=2, slots=3)
    plan = make_plan(wanted)
    limit = estimate_memory(plan, wanted).total
    config, files = fit_to_memory(plan, ServiceConfig(to="p.db", workers=2, memory=limit), in_memory=True)
    assert (config.workers, files.limit) == (2, limit)
    assert with_payloads(files)[0].total <= limit
    with pytest.raises(ConfigError, match="is too little"):
        fit_to_memory(
            plan,
            wanted.model_copy(update={"memory": limit, "batch_size": 32, "insert_batch_size": 128}),
            in_memory=True,
        )
