"""The memory ceiling: how it is said, what it consists of, and what is made to fit."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.autosize import fit_to_memory
from penstock.engine.jobs.common.largest import tell_workers
from penstock.engine.jobs.common.memory_estimate import MemoryEstimate, Part, estimate_memory, layout_of
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.common.sink_factory import job_sink
from penstock.engine.jobs.images.pipeline import ImageEmbeddingPipeline
from penstock.engine.machine.resources import memory_total
from penstock.engine.sources import SourceMemory, open_source
from penstock.errors import ConfigError, SharedMemoryFullError
from penstock.tests.ceilings import GIB, KIB, MIB, ceiling
from penstock.tests.packed import picture, write_tar

# -- how it is said ------------------------------------------------------------------------------------------

SIZES: list[tuple[Any, int]] = [
    ("4GiB", 4 * GIB),
    ("4G", 4 * GIB),
    ("4Gi", 4 * GIB),
    ("4 gib", 4 * GIB),
    ("512MiB", 512 * MIB),
    ("512m", 512 * MIB),
    ("1.5GB", 1_500_000_000),
    ("1.5GiB", 3 * GIB // 2),
    ("64KB", 64_000),
    ("2T", 2048 * GIB),
    ("1000000000", 10**9),
    ("1000000000B", 10**9),
    (3 * GIB, 3 * GIB),
]


@pytest.mark.parametrize(("said", "meant"), SIZES)
def test_a_size_is_said_in_many_ways(said: Any, meant: int) -> None:
    """The same field from the command line, a file and Python."""
    assert ServiceConfig(memory=said).memory == meant
    assert ServiceConfig(max_file_bytes=said).max_file_bytes == meant


def test_a_share_is_one_of_what_there_is() -> None:
    """Of the machine, or of the container."""
    assert ServiceConfig(memory="50%").memory == memory_total() // 2


@pytest.mark.parametrize(
    "said", ["", "much", "4 gigs", "-1", "0", "4iB", "5G%", "1e9", "0.1", "1.2.3G", "150%", "100.1%"]
)
def test_what_is_no_size_is_refused(said: Any) -> None:
    """With the field and the ways to say it."""
    with pytest.raises(ConfigError, match="memory"):
        ServiceConfig(memory=said)


# -- what it consists of -------------------------------------------------------------------------------------


def part(whole: MemoryEstimate, name: str) -> Part:
    (found,) = [part for part in whole.parts if part.name == name]
    return found


@pytest.mark.slow
def test_the_rings_are_what_a_pool_allocates() -> None:
    """To the byte: the layout that is computed is the one the workers say."""
    config = ServiceConfig(to="photos.db", workers=2, batch_size=4, slots=3)
    plan = make_plan(config)
    before = mapped()
    with plan.pool(config) as pool:
        assert pool.layout == layout_of(plan, 4)
        assert mapped() - before == part(estimate_memory(plan, config), "ring").total


def mapped() -> int:
    """Bytes of shared memory that this process has mapped, as the kernel says."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "/dev/shm/" in line]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


MORE: list[dict[str, Any]] = [
    {"workers": 3},
    {"batch_size": 64},
    {"slots": 5},
    {"insert_batch_size": 1000},
    {"image_size": 512},
    {"max_pixels": 100_000_000},
    {"max_file_bytes": "1GiB"},
    {"threads": 2},
    {"metadata": "albums.csv"},
    {"report": "report.html"},
    {"to": "photos.db"},
    {"to": "bulk:parts"},
]


@pytest.mark.parametrize("change", MORE, ids=lambda change: next(iter(change)))
def test_what_takes_more_raises_the_ceiling(change: dict[str, Any]) -> None:
    """Each setting that costs memory is in the figure."""
    base: dict[str, Any] = {"workers": 2, "embedder": "gist", "threads": 0}
    assert ceiling(**{**base, **change}).total > ceiling(**base).total


def test_the_books_of_a_job_are_in_it() -> None:
    """A byte an entry while it runs, and what opening takes; a store of the job's own keeps its rows in memory."""
    config = ServiceConfig(to="photos.db", workers=1)
    plan = make_plan(config)
    none, some = estimate_memory(plan, config), estimate_memory(plan, config, 10_000, 100)
    assert part(some, "books").nbytes >= 10_000
    assert part(some, "Milvus Lite").nbytes > part(none, "Milvus Lite").nbytes + 10_000 * 4 * 512
    assert none.uncounted == ("the rows of Milvus Lite",)
    assert some.uncounted == ()


def test_what_the_source_takes_is_in_it(tmp_path: Path) -> None:
    """By the largest group of a table; of pictures with metadata each row may have some. Of paths nothing."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"image": [bytes([number]) * 1_000_000 for number in range(9)], "n": range(9)})
    pq.write_table(table, tmp_path / "large.parquet", compression="none")
    pq.write_table(table, tmp_path / "small.parquet", compression="none", row_group_size=2)
    tar = write_tar(tmp_path / "a.tar", [("1.png", picture(1))])
    config = ServiceConfig(to="http://localhost:19530", workers=1)
    plan = make_plan(config)

    def estimate(source: str) -> MemoryEstimate:
        return estimate_memory(plan, config, source=open_source([source]).memory(plan.spec.max_file_bytes))

    plain = estimate(str(tmp_path))
    assert plain == estimate_memory(plan, config)
    large, small = (part(estimate(f"{tmp_path}/{name}.parquet"), "source").nbytes for name in ("large", "small"))
    assert large > 4 * 9_000_000
    assert 4 * 2_000_000 < small < large / 2
    assert part(estimate(f"{tmp_path}/*.parquet"), "source").nbytes == large
    for source in (f"{tmp_path}/small.parquet?columns=n", str(tar)):
        assert part(estimate(source), "rows").nbytes > part(plain, "rows").nbytes + 32 * 64 * KIB


def test_footers_of_many_tables_are_not_all_read_for_it(tmp_path: Path) -> None:
    """Of tables in a store that would be minutes. That they are not counted is said; the listing has seen them all."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number in range(20):
        size = 1_000_000 if number == 19 else 1_000
        pq.write_table(pa.table({"image": [bytes([number]) * size]}), tmp_path / f"{number:02}.parquet")
    source = open_source([f"{tmp_path}/*.parquet"])
    before = source.memory(2**30)
    assert before.nbytes < 20_000
    assert before.uncounted == ("tables behind the first 16",)
    assert len(list(source)) == 20
    after = source.memory(2**30)
    assert after.nbytes > 4_000_000
    assert after == SourceMemory(after.nbytes)


def test_what_nobody_knows_is_named() -> None:
    """A callable of the user's takes what it takes."""
    (named,) = ceiling(embedder="python:numpy:mean").uncounted
    assert "python:numpy:mean" in named
    assert "parent" in named
    assert named in str(ceiling(embedder="python:numpy:mean"))


@pytest.mark.parametrize("to", ["http://localhost:19530", "bulk:parts"])
def test_calls_to_the_store_are_as_many_as_it_has_threads(tmp_path: Path, to: str) -> None:
    """What waits there is counted for so many calls at once."""
    config = ServiceConfig(to=to, workers=1, batch_size=1, insert_batch_size=4096)
    threads = job_sink(config).threads
    rows = part(ceiling(to=to, workers=1, batch_size=1, insert_batch_size=4096), "rows").nbytes
    assert rows >= 4 * 512 * 4096 * (2 * threads + 3)


# -- made to fit ---------------------------------------------------------------------------------------------

KNOBS = ("workers", "batch_size", "insert_batch_size", "slots")


def fit(memory: int, **values: Any) -> tuple[tuple[int, ...], MemoryEstimate]:
    """The four settings that come out, and what they take."""
    config = ServiceConfig(**{"to": "http://localhost:19530", "memory": memory, **values})
    found, whole = fit_to_memory(make_plan(config), config)
    assert whole == replace(estimate_memory(make_plan(found), found), lowered=whole.lowered)
    return tuple(whole.settings[name] for name in KNOBS), whole


memories = st.integers(200 * MIB, 16 * GIB)
given_settings = st.fixed_dictionaries(
    {"max_pixels": st.sampled_from([100_000, 8_000_000, 64_000_000]), "max_file_bytes": st.sampled_from([MIB, GIB])},
    optional={
        "workers": st.integers(1, 64),
        "batch_size": st.integers(1, 512),
        "insert_batch_size": st.integers(1, 4096),
        "slots": st.integers(1, 16),
        "image_size": st.sampled_from([64, 512]),
        "profile": st.sampled_from(["low_memory", "high_throughput"]),
    },
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(memory=memories, values=given_settings)
def test_what_comes_out_fits_and_what_was_set_stays(memory: int, values: dict[str, Any]) -> None:
    """Or it is refused before the start."""
    try:
        found, whole = fit(memory, **values)
    except ConfigError:
        return
    assert whole.total <= memory
    assert all(found[KNOBS.index(name)] == value for name, value in values.items() if name in KNOBS)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(memories=st.tuples(memories, memories), values=given_settings)
def test_more_memory_never_gives_less(memories: tuple[int, int], values: dict[str, Any]) -> None:
    """Workers count first, then the size of batches, rows of a call, slots."""
    small, large = sorted(memories)
    try:
        less = fit(small, **values)[0]
    except ConfigError:
        return
    assert fit(large, **values)[0] >= less


def test_what_fits_is_left_as_it_is() -> None:
    """Nothing is lowered without need."""
    found, whole = fit(64 * GIB, workers=2)
    assert found == (2, 32, 128, 3)
    assert whole.lowered == ()


@pytest.mark.slow
def test_slots_are_given_up_before_batches_and_those_before_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the memory shrinks from step to step; what was lowered is said."""
    monkeypatch.setattr("penstock.engine.jobs.common.autosize.usable_cores", lambda: 4)
    large = {"image_size": 512, "embedder": "python:numpy:mean", "max_pixels": 1_000_000, "max_file_bytes": "1MiB"}
    steps = [fit(memory, **large)[0] for memory in range(4 * GIB, 680 * MIB, -8 * MIB)]
    changed = [
        next(name for name in KNOBS if a[KNOBS.index(name)] > b[KNOBS.index(name)]) for a, b in pairwise(steps) if a > b
    ]
    assert changed.index("slots") < changed.index("batch_size") < changed.index("workers")
    assert fit(680 * MIB, **large)[1].lowered[0].startswith("workers 1, not 4")


def test_a_job_that_cannot_fit_is_refused_with_its_parts() -> None:
    """The least it takes, what of it was set, and the knobs."""
    with pytest.raises(ConfigError) as refused:
        ImageEmbeddingPipeline(to="photos.db", memory="256MiB", batch_size=16)
    said = str(refused.value)
    assert re.search(r"256 MiB is too little, this job takes up to [\d.]+ GiB at the least \(with batch_size=16", said)
    assert all(word in said for word in ("worker", "parent", "ring", "Milvus Lite", "max_pixels", "max_file_bytes"))


def test_smaller_pictures_make_a_job_smaller() -> None:
    """Decoding the largest one is most of a worker."""
    whole = {"workers": 4, "batch_size": 8, "slots": 2, "insert_batch_size": 32}
    with pytest.raises(ConfigError, match="too little"):
        fit(2 * GIB, **whole)
    assert fit(2 * GIB, **whole, max_pixels=8_000_000, max_file_bytes="16MiB")[1].total <= 2 * GIB


def test_many_more_workers_than_cores_are_remarked_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line; a few more may be worth having where storage is slow."""
    monkeypatch.setattr("penstock.engine.jobs.common.largest.usable_cores", lambda: 2)
    with caplog.at_level(logging.WARNING):
        tell_workers(4)
        assert not caplog.messages
        tell_workers(64)
    (said,) = caplog.messages
    assert said.startswith("workers: 64 on 2 usable cores")


# -- in shared memory ----------------------------------------------------------------------------------------


def shared(room: int, **values: Any) -> tuple[tuple[int, ...], MemoryEstimate]:
    """The four settings that come out for so much room in ``/dev/shm``, and what they take."""
    config = ServiceConfig(**{"to": "photos.db", "preset": "clip", "workers": 2, **values})
    found, whole = fit_to_memory(make_plan(config), config, room=room)
    return tuple(getattr(found, name) for name in KNOBS), whole


def test_what_is_left_open_is_made_to_fit_into_shared_memory() -> None:
    """Batches are made smaller before slots are, as for ``memory``; it is said with the size that would do."""
    found, whole = shared(64 * MIB)
    assert found == (2, 16, 128, 3)
    assert whole.rings <= 64 * MIB
    assert re.search(
        r"/dev/shm has 64.0 MiB, not 11\d MiB: batch_size 16, not 32 \(docker run --shm-size=", whole.cramped
    )
    found, whole = shared(GIB)
    assert (found, whole.cramped, whole.lowered) == ((2, 32, 128, 3), "", ())


def test_what_was_set_is_refused_rather_than_changed_for_want_of_shared_memory() -> None:
    """With what was set, and the figures."""
    with pytest.raises(SharedMemoryFullError, match=r"MiB needed.*\(with workers=2, batch_size=256, as set\)"):
        shared(64 * MIB, batch_size=256)
    assert shared(64 * MIB, batch_size=32, slots=1)[0] == (2, 32, 128, 1)


def test_memory_and_shared_memory_are_both_kept() -> None:
    """The tighter one decides."""
    _, whole = shared(4 * MIB, memory="6GiB")
    assert whole.rings <= 4 * MIB
    assert whole.total <= 6 * GIB
