"""A volume worker over a folder of pages: what becomes of each page, and how it ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import ConfigError, PipelineFailure
from penstock.bench.page_renderer import WARPS, bent
from penstock.engine.jobs.volumes import RecordList
from penstock.engine.jobs.volumes.s3_context import etag_of
from penstock.errors import ChildrenFailedError, ReadError, SinkError, TooLargeError, TruncatedError, UnreadableError
from penstock.tests import scans
from penstock.tests.scans import (
    Around,
    WatchedBatcher,
    config,
    darkness,
    mean_of_pixels,
    page,
    tasks_in,
    worker,
    write_pages,
)
from penstock.tests.threads import our_threads
from penstock.tests.waiting import DEADLINE, wait_until
from penstock.volumes import DecodedFrame, ImageTask, PageLook, Record, S3Context, VolumeWorker

ANGLE = 3.0


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a volume of three straight pages, one turned and one bent."""
    folder = tmp_path_factory.mktemp("volumes")
    pages = {f"page-{number}.png": page(number) for number in range(3)}
    pages["page-3.png"] = page(3, ANGLE)
    pages["page-4.png"] = bent(page(4), WARPS["curl"])
    write_pages(folder / "vol", pages)
    return folder


def by_page(done: VolumeWorker) -> list[Record]:
    return sorted(done.records, key=lambda record: record.page)


# -- what becomes of pages --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pages_become_records_and_crooked_ones_are_straightened(volumes: Path) -> None:
    """Straight ones are looked at once; of others the record says how they lay, and how they lie now."""
    done = worker(volumes, config(volumes, batch_size=8))
    report = done.run_sync()
    report.check(ended=True)
    records = by_page(done)
    assert [record.key for record in records] == [f"vol/page-{number}.png" for number in range(5)]
    assert [record.page for record in records] == list(range(5))
    assert {(record.volume_id, record.width, record.height, record.patches) for record in records[:4]} >= {
        ("vol", 700, 1000, 4)
    }
    assert [record.size for record in records] == [(volumes / record.key).stat().st_size for record in records]
    for straight in records[:3]:
        assert straight.passes == 0
        assert abs(straight.angle) < 0.15
        assert (straight.control_points, straight.quality_after, straight.out_width) == (None, None, None)
    turned, curled = records[3:]
    assert turned.passes == 1
    assert turned.angle == pytest.approx(ANGLE, abs=0.1)
    assert curled.passes >= 1
    assert curled.bend * 2000 / curled.width > 4
    for crooked in (turned, curled):
        assert crooked.control_points is not None
        assert crooked.control_points.shape[1] == 4
        assert crooked.quality_after is not None
        assert crooked.quality_after > crooked.quality - 0.2
        assert crooked.out_width is not None


@pytest.mark.slow
def test_control_points_lead_from_the_result_back_to_the_scan(volumes: Path) -> None:
    """The middle of a turned page stays where it is; right of it lies what was higher in the scan."""
    done = worker(volumes, tasks=tasks_in(volumes, "vol")[3:4])
    done.run_sync()
    (record,) = done.records
    assert record.control_points is not None
    x, y, scan_x, scan_y = record.control_points.T
    turn = np.deg2rad(record.angle)
    middle_x, middle_y = (record.width - 1) / 2, (record.height - 1) / 2
    frame_x = middle_x + np.cos(turn) * (scan_x - middle_x) - np.sin(turn) * (scan_y - middle_y)
    frame_y = middle_y + np.sin(turn) * (scan_x - middle_x) + np.cos(turn) * (scan_y - middle_y)
    shifts = frame_x - x, frame_y - y  # the result may be larger than the scan
    assert all(np.ptp(shift) < 6 for shift in shifts)


def test_vectors_are_means_over_the_area_of_the_page(tmp_path: Path) -> None:
    """A page of 700 pixels has two patches across, which overlap: what lies in both counts once."""
    dark = np.full((512, 700), 200, np.uint8)
    dark[:, :350] = 100
    write_pages(tmp_path / "vol", {"half.png": dark})
    done = worker(tmp_path, transform=Around(lambda _: 0), batcher=WatchedBatcher(config(tmp_path)))
    done.run_sync()
    (record,) = done.records
    assert record.patches == 2
    assert record.vector is not None
    assert record.vector == pytest.approx([150] * 3, abs=2)


@pytest.mark.parametrize(("embedder", "dimension"), [("gist:32", 512), ("jax:penstock.tests.scans:jax_means", 3)])
def test_any_embedder_makes_the_vectors(tmp_path: Path, embedder: str, dimension: int) -> None:
    """Those that belong into workers, too, several batches at once."""
    write_pages(tmp_path / "vol", {f"{number}.png": np.full((600, 600), number, np.uint8) for number in range(3)})
    cfg = config(tmp_path, embedder=embedder, image_size=None, dtype=None, compute_threads=3)
    done = worker(tmp_path, cfg, batcher=WatchedBatcher(cfg), transform=Around(lambda _: 0))
    done.run_sync()
    assert not done.failures
    vectors = [record.vector for record in done.records]
    assert [None if vector is None else vector.shape for vector in vectors] == [(dimension,)] * 3


@pytest.mark.slow
def test_pages_without_lines_of_text_stay_as_they_are(tmp_path: Path) -> None:
    """Blank, a picture and nothing else, one pixel: records, with a quality that says why."""
    noise = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8).repeat(20, 0).repeat(20, 1)
    pages = {"blank.png": np.full((700, 600), 250, np.uint8), "one.png": np.zeros((1, 1), np.uint8), "photo.png": noise}
    write_pages(tmp_path / "vol", pages)
    done = worker(tmp_path)
    done.run_sync()
    assert not done.failures
    records = by_page(done)
    assert [record.passes for record in records] == [0, 0, 0]
    assert all(record.quality < 1 for record in records)
    assert [(record.width, record.height) for record in records] == [(600, 700), (1, 1), (800, 600)]


@pytest.mark.slow
def test_colours_and_depths_are_taken_as_they_come(tmp_path: Path) -> None:
    """A page in colours goes round in colours; one of 16 bits is scaled, not clipped."""
    turned = page(1, ANGLE)
    write_pages(tmp_path / "vol", {"deep.png": turned.astype(np.uint16) * 257, "red.png": np.stack([turned] * 3, -1)})
    done = worker(tmp_path)
    done.run_sync()
    assert not done.failures
    assert [record.passes for record in by_page(done)] == [1, 1]
    assert [record.angle for record in by_page(done)] == pytest.approx([ANGLE, ANGLE], abs=0.1)


@pytest.mark.slow
def test_a_page_goes_round_at_most_so_often(volumes: Path) -> None:
    """Even where it would never be good enough."""
    cfg = config(volumes, min_angle=0, max_passes=2)
    done = worker(volumes, cfg, tasks=tasks_in(volumes, "vol")[:1])
    done.run_sync()
    (record,) = done.records
    assert record.passes == 2
    measured = worker(volumes, config(volumes, max_passes=0), tasks=tasks_in(volumes, "vol")[3:4])
    measured.run_sync()
    (record,) = measured.records
    assert (record.passes, record.control_points) == (0, None)
    assert record.angle == pytest.approx(ANGLE, abs=0.1)


# -- pages that fail --------------------------------------------------------------------------------------------------


def test_bad_pages_are_failures_of_their_own(tmp_path: Path) -> None:
    """Whatever is wrong with one, all others have their records."""
    good = np.full((20, 30), 200, np.uint8)
    write_pages(tmp_path / "vol", {"a.png": good, "b.png": b"<html>", "c.png": good, "d.png": good, "e.png": good})
    whole = (tmp_path / "vol" / "c.png").read_bytes()
    (tmp_path / "vol" / "c.png").write_bytes(whole[: len(whole) // 2])
    tasks = [
        *tasks_in(tmp_path, "vol")[:3],
        ImageTask("vol/d.png", etag="another", volume_id="vol"),
        ImageTask("vol/e.png", etag=etag_of(str(tmp_path / "vol" / "e.png")), size=1, volume_id="vol"),
        ImageTask("vol/gone.png", volume_id="vol"),
        ImageTask("vol/a.png", etag=etag_of(str(tmp_path / "vol" / "a.png")), volume_id="vol"),
    ]
    done = worker(tmp_path, tasks=tasks, transform=Around(lambda _: 0), batcher=WatchedBatcher(config(tmp_path)))
    report = done.run_sync()
    assert sorted(record.page for record in done.records) == [0, 6]
    assert {key.removeprefix("vol/"): type(error) for key, error in done.failures.items()} == {
        "b.png": UnreadableError,
        "c.png": TruncatedError,
        "d.png": ReadError,
        "e.png": ReadError,
        "gone.png": ReadError,
    }
    assert "changed" in str(done.failures["vol/d.png"])
    assert "changed" in str(done.failures["vol/e.png"])
    assert (report.accounting.written, report.accounting.dead) == (2, 5)
    assert report.extra["volumes"]["each"] == {"vol": {"pages": 7, "done": 7, "dead": 5, "published": True}}


def test_a_page_over_a_limit_is_refused_by_its_header(tmp_path: Path) -> None:
    """Nothing of it is decoded."""
    write_pages(tmp_path / "vol", {"large.png": np.zeros((300, 300), np.uint8)})
    done = worker(tmp_path, config(tmp_path, max_pixels=80_000))
    done.run_sync()
    (error,) = done.failures.values()
    assert isinstance(error, TooLargeError)


def test_a_patch_that_fails_fails_its_page_alone(tmp_path: Path) -> None:
    """Also where patches of several pages lie in one batch."""

    def picky(patches: Any) -> Any:
        if (patches.max((1, 2)) == 77).any():
            raise ArithmeticError("seventy-seven")
        return darkness(patches)

    pages = {f"{number}.png": np.full((512, 700), number, np.uint8) for number in (10, 11, 12, 13)}
    pages["12.png"][:, -1] = 77
    write_pages(tmp_path / "vol", pages)
    cfg = config(tmp_path, batch_size=8)
    done = worker(tmp_path, cfg, transform=Around(lambda _: 0), batcher=WatchedBatcher(cfg, picky))
    report = done.run_sync()
    assert sorted(record.key for record in done.records) == ["vol/10.png", "vol/11.png", "vol/13.png"]
    (error,) = done.failures.values()
    assert isinstance(error, ChildrenFailedError)
    assert str(error) == "1 of 2 patches failed; the first, 1: ArithmeticError: seventy-seven"
    assert (report.accounting.written, report.accounting.dead) == (3, 1)


def test_a_patch_function_gets_full_batches_in_grey_or_in_colours(tmp_path: Path) -> None:
    """Of one shape, whatever there is; and each page gets its rows of whatever it returns."""
    shapes: set[tuple[int, ...]] = set()
    looks: list[PageLook] = []

    class Colours:
        channels = 3

        def __call__(self, patches: Any) -> Any:
            shapes.add(patches.shape)
            return {"mean": patches.mean((1, 2)), "ends": (patches[:, 0, 0, 0], patches[:, -1, -1, 2])}

    class Looks(Around):
        def inspect(self, page: PageLook) -> DecodedFrame | Record:
            looks.append(page)
            return super().inspect(page)

    red = np.zeros((600, 512, 3), np.uint8)
    red[:, :, 0] = 200
    write_pages(tmp_path / "vol", {"grey.png": np.full((512, 512), 7, np.uint8), "red.png": red})
    cfg = config(tmp_path, batch_size=8)
    done = worker(tmp_path, cfg, batcher=WatchedBatcher(cfg, Colours()), transform=Looks(lambda _: 0))
    done.run_sync()
    assert not done.failures
    assert shapes == {(8, 512, 512, 3)}
    found = {look.frame.task.page: look.features for look in looks}
    assert [row["mean"].tolist() for row in found[0]] == [[7, 7, 7]]
    assert [row["mean"].tolist() for row in found[1]] == [[200, 0, 0]] * 2
    assert [tuple(map(int, row["ends"])) for row in found[1]] == [(200, 0)] * 2


@pytest.mark.parametrize(("fails", "written"), [(2, 3), (99, 0)])
def test_an_embedder_that_fails_of_something_transient_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int, written: int
) -> None:
    """By the policy of the stage; where it never answers, the pages are failures, and each is one."""
    calls = count(1)

    def flaky(pixels: Any) -> Any:
        if 1 < next(calls) <= fails + 1:  # the first one is a trial, when it is opened
            raise ConnectionError("the model is being loaded")
        return mean_of_pixels(pixels)

    monkeypatch.setattr(scans, "mean_of_pixels", flaky)
    write_pages(tmp_path / "vol", {f"{number}.png": np.full((20, 20), number, np.uint8) for number in range(3)})
    cfg = config(tmp_path, on_failure={"embed": "retry:3"})
    done = worker(tmp_path, cfg, batcher=WatchedBatcher(cfg), transform=Around(lambda _: 0))
    report = done.run_sync()
    assert (report.accounting.written, report.accounting.dead) == (written, 3 - written)
    for error in done.failures.values():
        assert isinstance(error, ChildrenFailedError)
        assert "the model is being loaded" in str(error)


def test_what_a_controller_raises_is_the_pages_failure(tmp_path: Path) -> None:
    """One of the user's, too."""

    class Refuses(Around):
        def inspect(self, page: PageLook) -> DecodedFrame | Record:
            if page.frame.task.page == 1:
                raise ValueError("not this one")
            return super().inspect(page)

    write_pages(tmp_path / "vol", {f"{number}.png": np.zeros((20, 20), np.uint8) for number in range(3)})
    done = worker(tmp_path, transform=Refuses(lambda _: 0), batcher=WatchedBatcher(config(tmp_path)))
    done.run_sync()
    assert [record.page for record in by_page(done)] == [0, 2]
    assert [str(error) for error in done.failures.values()] == ["not this one"]


@pytest.mark.parametrize("budget", [0, "10%"])
def test_a_spent_budget_ends_it_and_nothing_is_published(tmp_path: Path, budget: int | str) -> None:
    """Also by a rate, which is judged at the end; and no thread remains."""
    write_pages(tmp_path / "vol", {"a.png": b"no", "b.png": np.zeros((20, 20), np.uint8)})
    before = our_threads()
    cfg = config(tmp_path, max_failures=budget)
    done = worker(tmp_path, cfg, batcher=WatchedBatcher(cfg), transform=Around(lambda _: 0))
    with pytest.raises(PipelineFailure):
        done.run_sync()
    assert done.records.published() is None
    assert our_threads() == before


@pytest.mark.parametrize("error", [SinkError("the disk is full"), ValueError("the disk is full")])
def test_a_writer_that_cannot_go_on_ends_it(tmp_path: Path, error: Exception) -> None:
    """It is the job's failure, not the pages', whatever the writer raises: nothing is published without them."""

    class Full(RecordList):
        def write(self, records: Sequence[Record]) -> None:
            raise error

    write_pages(tmp_path / "vol", {"a.png": np.zeros((20, 20), np.uint8)})
    before, full = our_threads(), Full()
    batcher = WatchedBatcher(config(tmp_path))
    with pytest.raises(PipelineFailure) as caught:
        worker(tmp_path, writer=full, batcher=batcher, transform=Around(lambda _: 0)).run_sync()
    (cause,) = caught.value.exceptions
    assert isinstance(cause, SinkError)
    assert "the disk is full" in str(cause)
    assert full.published() is None
    assert our_threads() == before


# -- under asyncio ----------------------------------------------------------------------------------------------------


def quick(tmp_path: Path, pages: int = 4, **settings: Any) -> tuple[VolumeWorker, WatchedBatcher]:
    """A worker over small pages, whose batches are watched."""
    if not (tmp_path / "vol").exists():
        write_pages(tmp_path / "vol", {f"{number}.png": np.full((20, 20), 9, np.uint8) for number in range(pages)})
    cfg = config(tmp_path, **settings)
    watched = WatchedBatcher(cfg)
    return worker(tmp_path, cfg, batcher=watched, transform=Around(lambda _: 0)), watched


def test_it_runs_under_the_users_own_loop(tmp_path: Path) -> None:
    """The loop goes on meanwhile."""
    done, watched = quick(tmp_path)
    watched.may_run.clear()

    async def main() -> None:
        async with asyncio.timeout(DEADLINE):
            running = asyncio.create_task(done.run())
            await asyncio.to_thread(watched.began.wait)
            assert not running.done()
            watched.may_run.set()
            report = await running
            assert report is done.report

    asyncio.run(main())
    assert len(done.records) == 4
    assert done.records.published() == {"rows": 4, "pages": 4, "dead": 0}


def test_cancelling_it_stops_everything_and_publishes_nothing(tmp_path: Path) -> None:
    """In the middle of a batch; no thread remains."""
    before = our_threads()
    done, watched = quick(tmp_path)
    watched.may_run.clear()

    async def main() -> None:
        async with asyncio.timeout(DEADLINE):
            running = asyncio.create_task(done.run())
            await asyncio.to_thread(watched.began.wait)
            running.cancel()
            watched.may_run.set()  # what has begun is let end
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(main())
    assert done.records.published() is None
    assert watched.closed
    assert our_threads() == before


def test_volumes_that_share_a_semaphore_share_its_turns(tmp_path: Path) -> None:
    """An asyncio one of the user's loop: both workers together never read more at once, and the user has turns, too."""
    write_pages(tmp_path / "vol", {f"{number}.png": np.full((20, 20), 9, np.uint8) for number in range(12)})
    cfg = config(tmp_path, s3_max_inflight=8)
    most = Most()

    class Watched(S3Context):
        def read(self, task: ImageTask) -> bytes:
            with most:
                return super().read(task)

    async def main() -> None:
        semaphore = asyncio.Semaphore(3)
        parts = [{"transform": Around(lambda _: 0), "batcher": WatchedBatcher(cfg)} for _ in range(2)]
        workers = [
            VolumeWorker(cfg, Watched(cfg, semaphore), "vol", tasks_in(tmp_path, "vol"), **part)  # type: ignore[arg-type]
            for part in parts
        ]
        async with asyncio.timeout(DEADLINE), semaphore:  # one turn is the user's
            await asyncio.gather(*(each.run() for each in workers))
        assert [len(each.records) for each in workers] == [12, 12]
        async with asyncio.timeout(DEADLINE):  # every turn has been given back
            for _ in range(3):
                await semaphore.acquire()

    asyncio.run(main())
    assert 1 <= most.seen <= 2


def test_a_semaphore_for_threads_is_shared_likewise(tmp_path: Path) -> None:
    """Without asyncio."""
    done, watched = quick(tmp_path, s3_max_inflight=8)
    del watched
    most, cfg = Most(), config(tmp_path)

    class Watched(S3Context):
        def read(self, task: ImageTask) -> bytes:
            with most:
                return super().read(task)

    done = VolumeWorker(
        cfg,
        Watched(cfg, threading.Semaphore(1)),
        "vol",
        tasks_in(tmp_path, "vol"),
        transform=Around(lambda _: 0),
        batcher=WatchedBatcher(cfg),
    )
    done.run_sync()
    assert len(done.records) == 4
    assert most.seen == 1


def test_cancelling_it_while_it_waits_for_a_turn_ends_it(tmp_path: Path) -> None:
    """Somebody else has the only turn, and keeps it."""
    before = our_threads()
    cfg = config(tmp_path)
    quick(tmp_path)

    async def main() -> None:
        semaphore = asyncio.Semaphore(1)
        done = VolumeWorker(cfg, S3Context(cfg, semaphore), "vol", tasks_in(tmp_path, "vol"))
        async with asyncio.timeout(DEADLINE), semaphore:
            running = asyncio.create_task(done.run())
            await asyncio.to_thread(wait_until, lambda: getattr(semaphore, "_waiters", None), "a reader that waits")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        async with asyncio.timeout(DEADLINE):  # the turns that were given up were not taken
            await semaphore.acquire()

    asyncio.run(main())
    assert our_threads() == before


def test_cancelling_it_while_it_waits_for_a_turn_of_threads_ends_it(tmp_path: Path) -> None:
    """The same at a semaphore that no loop knows."""
    before = our_threads()
    cfg, only = config(tmp_path), threading.Semaphore(0)
    quick(tmp_path)

    async def main() -> None:
        done = VolumeWorker(cfg, S3Context(cfg, only), "vol", tasks_in(tmp_path, "vol"))
        async with asyncio.timeout(DEADLINE):
            running = asyncio.create_task(done.run())
            readers = lambda: [name for name in our_threads() if name.startswith("penstock-read")]  # noqa: E731
            await asyncio.to_thread(wait_until, readers, "a reader")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(main())
    assert our_threads() == before


class Most:
    """How many are inside at once, at most."""

    def __init__(self) -> None:
        self.seen = self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.seen = max(self.seen, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_worker_runs_once(tmp_path: Path) -> None:
    """Another one is made in no time."""
    done, _ = quick(tmp_path)
    done.run_sync()
    with pytest.raises(RuntimeError, match="has run already"):
        done.run_sync()


def test_an_asyncio_semaphore_needs_a_loop(tmp_path: Path) -> None:
    """It is said which other one to give."""
    quick(tmp_path)
    cfg = config(tmp_path)
    done = VolumeWorker(cfg, S3Context(cfg, asyncio.Semaphore(1)), "vol", tasks_in(tmp_path, "vol"))
    with pytest.raises(PipelineFailure) as caught:
        done.run_sync()
    assert isinstance(caught.value.exceptions[0], ConfigError)
    assert "global_sem" in str(caught.value.exceptions[0])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: config(to="a", out_prefix=None, index="HNSW"), "index: jobs on volumes have no such setting"),
        (lambda: config(s3_max_inflight=0), "s3_max_inflight"),
        (lambda: worker(Path("/nowhere"), config(job="job"), tasks=[]), "job: the books of volumes are kept by"),
        (lambda: worker(Path("/nowhere"), config(report="r.json"), tasks=[]), "report: a worker returns its report"),
        (lambda: config(s3_bukcet="b"), "s3_bukcet"),
        (
            lambda: worker(Path("/nowhere"), tasks=[ImageTask("k", volume_id="other")]),
            "tasks: 'k' is of the volume 'other'",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_name(make: Callable[[], object], told: str) -> None:
    """Before anything is begun."""
    with pytest.raises(ConfigError, match=told):
        make()


def test_a_key_without_a_bucket_is_said_so(tmp_path: Path) -> None:
    """The one setting that is missing."""
    done = worker(tmp_path, config(), tasks=[ImageTask("vol/1.jpg")])
    with pytest.raises(PipelineFailure) as caught:
        done.run_sync()
    assert "s3_bucket is missing" in str(caught.value.exceptions[0])


@pytest.mark.slow
def test_what_is_compiled_for_patches_is_kept_where_nobody_else_uses_jax() -> None:
    """A second process need not compile it."""
    code = (
        "from penstock.volumes import GpuBatcher, PipelineConfig; "
        "batcher = GpuBatcher(PipelineConfig(embedder='gist:32')); batcher.open(); batcher.close(); "
        "import jax; assert jax.config.jax_compilation_cache_dir and jax.config.jax_platforms == 'cpu'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")
