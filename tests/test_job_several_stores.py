"""Jobs into several stores: their books, and what becomes of a store that lags, or is another one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError, embed_images
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.fingerprints import begun_with
from penstock.engine.jobs.common.memory_estimate import estimate_memory
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.common.provenance import recipe_of
from penstock.engine.jobs.common.sink_cache import SinkCache
from penstock.engine.jobs.common.sink_factory import job_sink, sink_to_read
from penstock.engine.jobs.common.store_check import Known, checked, with_id
from penstock.engine.jobs.images.runner import JobRunner
from penstock.engine.journal import JobFolder, read_status
from penstock.engine.journal.disk import Disk
from penstock.engine.journal.entries import Entry
from penstock.engine.journal.layout import Layout, numbers
from penstock.engine.journal.loading import load
from penstock.engine.journal.manifest import read_manifest as read_job_manifest
from penstock.engine.sources import FileSource
from penstock.errors import CollectionMismatchError, JournalDiskError, StoreChangedError
from penstock.sinks import ParquetBulkSink, RowBatch, read_manifest
from penstock.testing.sinks import DIMENSION, make_rows
from penstock.tests.whole_jobs import draw_folder, started, wait_for
from penstock.tests.whole_jobs import penstock as command

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "embedder": "gist:32", "progress": "none"}

PLUGIN = """
from contextlib import suppress
from penstock.sinks import NullSink

class Told(NullSink):
    \"\"\"Appends the keys of what it is given to a file; waits at a fifo beside it, if there is one, before.\"\"\"

    def __init__(self, uri, options):
        super().__init__(options.collection, options.dimension)
        self._uri, self._path = uri, uri.partition(":")[2]

    @property
    def uri(self):
        return self._uri

    @property
    def fingerprint(self):
        return self._uri

    def write(self, rows):
        with suppress(FileNotFoundError):
            open(self._path + ".fifo").read()
        with open(self._path, "a") as file:
            file.writelines(key + "\\n" for key in rows.keys)
        return super().write(rows)
"""


@pytest.mark.slow
@pytest.mark.kills
def test_a_job_killed_between_two_acknowledgements_asks_only_the_store_that_lags(
    tmp_path: Path, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first store has rows that the second has not: they are embedded again, and go into the second alone."""
    install("told_sink", {"told": "told_sink:Told"}, PLUGIN, "penstock.sinks")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pictures, job, fifo = draw_folder(tmp_path / "pictures", 8), tmp_path / "job", tmp_path / "b.fifo"
    os.mkfifo(fifo)
    stores = [word for name in "ab" for word in ("--to", f"told:{tmp_path / name}")]
    own = ["--job", str(job), "--workers", "1", "--batch-size", "4", "--insert-batch-size", "4", "--progress", "none"]
    with started(command("embed", str(pictures), *stores, *own)) as process:
        wait_for(process, lambda: acknowledged(job) > 0)
        assert process.poll() is None
        process.kill()
        process.wait()
    first = (tmp_path / "a").read_text().split()
    had = acknowledged(job)
    assert read_status(job).counts.written == 0
    assert not (tmp_path / "b").exists()
    fifo.unlink()
    with started(command("resume", str(job), "--progress", "none")) as process:
        process.communicate()
        assert process.returncode == 0
    every = (tmp_path / "b").read_text().split()
    assert len(every) == len(set(every)) == 8
    again = (tmp_path / "a").read_text().split()[len(first) :]
    assert len(again) == 8 - had
    assert {*first, *again} == {*every}
    assert read_status(job).counts.written == 8


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize("killed", [False, True], ids=["it comes back", "the job is killed meanwhile"])
def test_a_store_that_is_down_holds_the_other_back_only_as_far_as_the_backlog(
    tmp_path: Path, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Both have every row in the end, once; a later run asks the one that went on for nothing that it has."""
    install("told_sink", {"told": "told_sink:Told"}, PLUGIN, "penstock.sinks")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pictures, job, fifo = draw_folder(tmp_path / "pictures", 60), tmp_path / "job", tmp_path / "b.fifo"
    os.mkfifo(fifo)
    stores = [word for name in "ab" for word in ("--to", f"told:{tmp_path / name}")]
    own = ["--job", str(job), "--workers", "1", "--batch-size", "4", "--insert-batch-size", "4", "--progress", "none"]
    most = 4 * (4 + 3)  # writes of the sink's own threads, and those that 12 rows are
    with started(command("embed", str(pictures), *stores, *own, "--backlog", "12")) as process:
        wait_for(process, lambda: acknowledged(job) == most)
        assert len((tmp_path / "a").read_text().split()) == most
        assert read_status(job).counts.written == 0
        if killed:
            process.kill()
            process.wait()
        release(fifo)
        process.communicate()
        assert (process.returncode == 0) is not killed
    if killed:
        with started(command("resume", str(job), "--progress", "none")) as process:
            process.communicate()
            assert process.returncode == 0
    for name in "ab":
        keys = (tmp_path / name).read_text().split()
        assert len(keys) == len(set(keys)) == 60
    assert read_status(job).counts.written == 60


def release(fifo: Path) -> None:
    """Whoever waits at it goes on, and nobody will wait there any more."""
    end = os.open(fifo, os.O_RDWR)  # also where nobody waits
    fifo.unlink()
    os.close(end)


def test_the_backlog_is_in_the_memory_that_a_job_says_it_takes(tmp_path: Path) -> None:
    """Of several stores; one alone has none."""

    def rows(to: list[str], backlog: int) -> int:
        config = ServiceConfig(to=to, backlog=backlog, workers=1, embedder="gist:32")
        parts = estimate_memory(make_plan(config), config).parts
        return next(part.nbytes for part in parts if part.name == "rows")

    several = [str(tmp_path / "a.db"), str(tmp_path / "b.db")]
    assert rows(several, 4096) - rows(several, 0) > 4096 * 32 * 4
    assert rows(several[:1], 4096) == rows(several, 0)


def acknowledged(job: Path) -> int:
    """Rows that the first store alone has acknowledged, as the journal has it; 0 while there is none."""
    if not (job / "job.json").exists():
        return 0
    disk, layout = Disk(), Layout(str(job))
    found = numbers("journal", [path.name for path in job.iterdir()])
    if not found:
        return 0
    with suppress(JournalDiskError):  # a newer one has just taken its place
        loaded = load(disk, layout, found[-1], read_job_manifest(disk, layout.manifest).job)
        loaded.close(disk)
        return sum(map(len, loaded.states.acknowledged(0)))
    return 0


@pytest.mark.slow
def test_a_job_into_two_stores_is_one_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command: both have all rows, the end says what to do with each, and `resume` knows both."""
    pictures, job = draw_folder(tmp_path / "pictures", 10), tmp_path / "job"
    stores = [f"bulk:{tmp_path / name}" for name in "ab"]
    command = ["embed", str(pictures), "--to", stores[0], "--to", stores[1], "--job", str(job), "--workers", "1"]
    assert main([*command, "--progress", "none", "--embedder", "gist:32"]) == 0
    out = capsys.readouterr().out
    assert f"penstock import {tmp_path / 'a'} " in out
    assert f"penstock import {tmp_path / 'b'} " in out
    assert [read_manifest(tmp_path / name).rows for name in "ab"] == [10, 10]
    assert read_status(job).counts.written == 10
    assert main(["resume", str(job)]) == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_another_second_store_is_noticed(tmp_path: Path) -> None:
    """The message names it; and other stores are another job."""
    pictures = draw_folder(tmp_path / "pictures", 5)
    how: dict[str, Any] = {"job": tmp_path / "job", **SMALL}
    stores = [f"bulk:{tmp_path / name}" for name in "ab"]
    embed_images(pictures, to=stores, **how)
    with pytest.raises(ConfigError, match="was begun otherwise: store was"):
        embed_images(pictures, to=stores[0], **how)
    (tmp_path / "b").rename(tmp_path / "away")
    with pytest.raises(StoreChangedError, match=f"rows to {stores[1]}, .* is not there any more"):
        embed_images(pictures, to=stores, **how)
    with ParquetBulkSink(tmp_path / "b", 512) as other:
        other.write(RowBatch(["x"], make_rows(1).vectors.repeat(64, 1), [{}]))
    with pytest.raises(StoreChangedError, match=f"rows to {stores[1]}, .* is another one, with 1 row"):
        embed_images(pictures, to=stores, **how)


def test_a_store_that_lost_what_it_alone_had_acknowledged_is_noticed(tmp_path: Path) -> None:
    """Before any row is written everywhere: else those rows would be missing there for good."""
    with JobFolder.create_or_open(tmp_path / "job") as job:
        job.write_snapshot(Entry(name) for name in "abc")
        job.acknowledged(1, [0, 1])
        with pytest.raises(StoreChangedError, match="has written 2 rows to b, but it is not there any more"):
            checked(job, Known("x"), None, "b", number=1, accept=False)
        assert checked(job, Known(), None, "a", number=0, accept=False) == Known()


def test_a_store_that_was_made_by_another_recipe_is_refused_among_others(tmp_path: Path) -> None:
    """Its vectors could not be compared with those of this job."""
    other = ServiceConfig(to=f"bulk:{tmp_path / 'b'}", embedder="gist:64")
    with job_sink(other, dimension=DIMENSION, note=with_id(recipe_of(make_plan(other)))) as sink:
        sink.write(make_rows(1))
    config = ServiceConfig(to=[f"bulk:{tmp_path / 'a'}", *other.destinations], embedder="gist:32")
    with closing(SinkCache()) as stores, pytest.raises(CollectionMismatchError):
        stores.to_write(config, make_plan(config), "images", lambda: DIMENSION)


def test_only_stores_that_keep_rows_are_looked_into(tmp_path: Path) -> None:
    """By their numbers among all."""
    config = ServiceConfig(to=["null:", f"bulk:{tmp_path / 'a'}"])
    with closing(SinkCache()) as stores:
        assert stores.look(config, "images") == {1: None}


def test_a_store_with_room_for_one_collection_is_not_asked_for_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'others' needs its own place"):
        job_sink(ServiceConfig(to=["null:", f"bulk:{tmp_path}"]), "others")


def test_the_store_that_can_be_searched_is(tmp_path: Path) -> None:
    """Wherever it is named."""
    places = [f"bulk:{tmp_path / 'a'}", "null:", str(tmp_path / "rows.db")]
    assert sink_to_read(ServiceConfig(to=places), "images").local_path == tmp_path / "rows.db"


def test_what_one_store_has_acknowledged_does_not_count_for_another(tmp_path: Path) -> None:
    """Nor do single pictures of a film, of which all are made again."""
    pictures = draw_folder(tmp_path / "pictures", 2)

    def opened(second: str) -> JobCheckpoint:
        config = ServiceConfig(to=["null:", f"bulk:{tmp_path / second}"], job=tmp_path / "job", accept_changes=True)
        return JobCheckpoint(config, make_plan(config), FileSource(str(pictures)))

    with opened("a") as job:
        job.children.begin(1)
        job.acknowledged(0, [0, 1])
        assert [job.acknowledged_by(ordinal) for ordinal in range(2)] == [1, 0]
    with opened("a") as job:
        assert job.acknowledged_by(0) == 1
    with opened("b") as job:
        assert job.acknowledged_by(0) == 0


@pytest.mark.slow
def test_each_store_keeps_its_own_settings_when_the_job_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are in the books with its address; what a later run says otherwise is a difference of that store."""
    pictures, job = draw_folder(tmp_path / "pictures", 4), tmp_path / "job"
    stores = [f"bulk:{tmp_path / 'a'}?collection=mine&fields=year:int64", f"bulk:{tmp_path / 'b'}"]
    embed_images(pictures, to=stores, job=job, **SMALL)
    assert [read_manifest(tmp_path / name).collection for name in "ab"] == ["mine", "images"]
    assert [read_manifest(tmp_path / name).fields for name in "ab"] == [{"year": "int64"}, {}]
    config, _ = begun_with(read_status(job))
    assert config.destinations == tuple(stores)
    assert main(["resume", str(job)]) == 0
    other = [stores[0].replace("mine", "yours"), stores[1]]
    with pytest.raises(
        ConfigError, match=r"store was bulk:\S*/a collection mine and .* is bulk:\S*/a collection yours"
    ):
        embed_images(pictures, to=other, job=job, **SMALL)
    (tmp_path / "a").rename(tmp_path / "away")
    assert main(["resume", str(job)]) == 1
    assert f"rows to bulk:{tmp_path / 'a'}, collection 'mine', but" in capsys.readouterr().err


def test_a_job_that_goes_on_overwrites_in_none_of_its_stores(tmp_path: Path) -> None:
    """What is there is its own by then, also where one store alone was to be overwritten."""
    to = [f"bulk:{tmp_path / 'a'}?mode=overwrite&collection=x", f"bulk:{tmp_path / 'b'}"]
    with closing(JobRunner(ServiceConfig(to=to, mode="overwrite"))) as runner:
        runner.keep_rows()
        assert [(store.config.mode, store.config.collection) for store in runner.config.stores] == [
            ("append", "x"),
            ("append", "images"),
        ]


@pytest.mark.slow
def test_the_index_of_one_store_alone_is_waited_for(tmp_path: Path) -> None:
    """The other has none, and would refuse the wait; a later run waits for the same one."""
    pictures = draw_folder(tmp_path / "pictures", 3)
    to = [f"bulk:{tmp_path / 'a'}", {"to": tmp_path / "rows.db", "wait_index": 30.0, "collection": "x"}]
    for _ in range(2):
        report = embed_images(pictures, config=ServiceConfig(to=to, job=tmp_path / "job", **SMALL))
        assert (report.extra["index"]["rows"], report.extra["index"]["indexed"]) == (3, 3)
    with pytest.raises(ConfigError, match=r"^wait_index: bulk:.* has none"):
        embed_images(pictures, config=ServiceConfig(to=to, job=tmp_path / "job", wait_index=5, **SMALL))


@pytest.mark.slow
def test_columns_of_a_file_are_typed_as_any_store_has_them(tmp_path: Path) -> None:
    """A text of a CSV becomes a number for the one that has a column of numbers."""
    pictures = draw_folder(tmp_path / "pictures", 1)
    (tmp_path / "albums.csv").write_text("path,year\npictures/0000.png,1999\n")
    to = [f"bulk:{tmp_path / 'a'}?fields=year:int64", "null:"]
    report = embed_images(pictures, to=to, metadata=tmp_path / "albums.csv", **SMALL)
    assert report.accounting.written == 1
