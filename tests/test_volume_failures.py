"""A volume worker whose pages, patches, embedder or writer fail: what that costs, and what it does not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import PipelineFailure
from penstock.bench.volume_parts import Around
from penstock.engine.jobs.volumes import RecordList
from penstock.engine.jobs.volumes.s3_context import etag_of
from penstock.errors import ChildrenFailedError, ReadError, SinkError, TooLargeError, TruncatedError, UnreadableError
from penstock.tests import scans
from penstock.tests.scans import (
    WatchedBatcher,
    by_page,
    config,
    darkness,
    mean_of_pixels,
    tasks_in,
    worker,
    write_pages,
)
from penstock.tests.threads import our_threads
from penstock.volumes import DecodedFrame, ImageTask, PageLook, Record


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
