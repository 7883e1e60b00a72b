"""The store of a job is asked before the job goes on: a collection that has gone, is another one, or lacks rows."""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

import penstock
from penstock import Report, ServiceConfig
from penstock.engine.cli import main
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.common.sink_cache import SinkCache
from penstock.engine.jobs.common.store_check import STORE
from penstock.engine.journal import JobFolder, read_status
from penstock.engine.servers import MilvusLiteServer, MilvusServer
from penstock.engine.sources import FileSource
from penstock.errors import StoreChangedError
from penstock.sinks import Found, RowBatch, read_manifest, row_key
from penstock.tests.whole_jobs import draw, draw_folder, embed, started, stored, wait_for, written

pytestmark = pytest.mark.slow

PICTURES, DIMENSION = 6, 512


class Job:
    """A job over a folder of small pictures, with its books in a folder of its own.

    Args:
        settings: for all its runs.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = {"workers": 1, "progress": "none", "job": Path("job"), **settings}

    def other(self, **settings: Any) -> Job:
        """Another job, into the same store."""
        return Job(**{**self.settings, "job": Path("other"), **settings})

    def config(self, **settings: Any) -> ServiceConfig:
        return ServiceConfig(**{**self.settings, **settings})

    def run(self, source: str = "pictures", **settings: Any) -> Report:
        """To its end."""
        return penstock.embed_images(source, config=self.config(**settings))

    def resume(self, *words: str) -> int:
        """On the command line; the exit status."""
        return main(["resume", str(self.settings["job"]), *words])

    def write(self, source: str = "pictures", most: int = PICTURES, **settings: Any) -> None:
        """What a run does with its store and its books, with rows that no worker has made; killed after so many."""
        config = self.config(**settings)
        plan = make_plan(config)
        with JobCheckpoint(config, plan, FileSource(source)) as books, closing(SinkCache()) as stores:
            if books.counts.written:
                books.check_store(stores.look(config, config.collection)[0], "")
            sink = stores.to_write(config, plan, config.collection, lambda: DIMENSION)
            books.writes_to(lambda: [sink.note])
            for item in islice(books.entries(), most):
                key = row_key(item.key)
                sink.write(RowBatch([key], np.ones((1, DIMENSION), np.float32), [{"path": item.key}]))
                books.written([item.ordinal])

    def look(self) -> Found | None:
        """What its store holds."""
        config = self.config()
        with closing(SinkCache()) as stores:
            return stores.look(config, config.collection)[0]

    @property
    def rows(self) -> int:
        """In its store."""
        found = self.look()
        assert found
        return found.rows

    def ask(self, request: Callable[[Any, str], object]) -> None:
        """Somebody else does something to the collection, of which the request gets the name."""
        config = self.config()
        with closing(MilvusClient(str(config.to))) as client:
            request(client, config.collection)

    def drop(self) -> None:
        self.ask(lambda client, name: client.drop_collection(name))

    def delete(self, *names: str) -> None:
        """The rows of these pictures."""
        keys = [row_key(str(Path("pictures", name).absolute())) for name in names]
        self.ask(lambda client, name: client.delete(name, ids=keys))

    def delete_two(self) -> None:
        self.delete("0000.png", "0003.png")

    def make_anew(self) -> None:
        """Another job has written as many rows into a collection of the same name."""
        self.drop()
        self.other().write()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to be in, with a folder of small pictures."""
    monkeypatch.chdir(tmp_path)
    draw_folder(tmp_path / "pictures", PICTURES)
    return tmp_path


@pytest.fixture
def served(milvus_lite_server: MilvusLiteServer) -> Job:
    """A job into a collection of its own on a server."""
    return Job(to=milvus_lite_server.uri, collection=f"c{uuid.uuid4().hex}")


@pytest.fixture
def filed() -> Job:
    """A job into a Milvus Lite file."""
    return Job(to="rows.db")


def new_picture() -> None:
    draw(Path("pictures/new.png"), np.random.default_rng(1))


CHANGES = {
    "dropped": (Job.drop, "it is not there any more"),
    "made anew": (Job.make_anew, "what is there now is another one, with 6 rows"),
    "rows deleted": (Job.delete_two, "it holds 4 now"),
}
changes = pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)


def tells(job: Job, change: Callable[[Job], None], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each time it is asked, finished or not."""
    job.write()
    change(job)
    for words in ([], ["--update"]):
        assert job.resume(*words) == 1
        errors = capsys.readouterr().err
        assert f"has written 6 rows to {job.config().to}, collection {job.config().collection!r}, but {said}" in errors
        assert "--redo" in errors
        assert "--accept-store" in errors
        new_picture()


@changes
def test_a_job_whose_store_has_changed_says_what_differs_and_how_to_go_on(
    change: Callable[[Job], None], said: str, served: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    """By exit status 1, each time it is asked, finished or not."""
    tells(served, change, said, capsys)


@changes
def test_a_full_server_is_asked_as_well(
    change: Callable[[Job], None], said: str, milvus: MilvusServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """By exit status 1; rows that were written over are counted once."""
    job = Job(to=milvus.uri, collection=f"c{uuid.uuid4().hex}")
    job.other(job=Path("before")).write()
    tells(job, change, said, capsys)


def test_nothing_is_made_in_the_place_of_a_file_that_has_gone(filed: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the next look would find a store."""
    filed.write()
    Path("rows.db").rename("moved.db")
    for _ in range(2):
        assert filed.resume() == 1
        assert "it is not there any more" in capsys.readouterr().err
    assert not Path("rows.db").exists()
    Path("moved.db").rename("rows.db")
    assert filed.resume() == 0


@changes
def test_a_store_that_is_accepted_stays_accepted(
    change: Callable[[Job], None], said: str, served: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was written stays as written; what is lost after that is told again."""
    del said
    served.write()
    change(served)
    before = read_status("job").counts
    assert served.resume("--accept-store") == 0
    assert served.resume() == 0
    assert read_status("job").counts == before
    new_picture()
    served.write(update=True)
    served.write()
    assert read_status("job").counts.written == PICTURES + 1
    served.drop()
    assert served.resume() == 1
    assert "not there any more" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["embed", "retry"])
def test_redo_does_all_of_it_again(command: str, served: Job) -> None:
    """Into the store as it is now, with the rows of others: also a job that was begun with ``--overwrite``."""
    served.write(mode="overwrite")
    served.drop()
    draw_folder(Path("others"), 2)
    others = served.other()
    others.write("others")
    to, name = str(served.config().to), served.config().collection
    first = ["embed", "pictures", "--to", to, "--collection", name, "--job", "job", "--overwrite"]
    words = first if command == "embed" else ["retry", "job"]
    assert main([*words, "--redo", "--workers", "1", "--progress", "none"]) == 0
    assert served.rows == PICTURES + 2
    assert served.resume() == others.resume() == 0


def test_redo_and_accept_store_exclude_one_another(filed: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """One of them forgets what the other believes."""
    filed.write(most=0)
    assert filed.resume("--redo", "--accept-store") == 2
    assert "exclude one another" in capsys.readouterr().err


def test_an_older_copy_of_the_store_is_noticed_by_its_rows(filed: Job) -> None:
    """A backup has the id of the collection, but not the rows that came after it."""
    filed.write(most=4)
    shutil.copytree("rows.db", "backup.db")
    filed.write()
    shutil.rmtree("rows.db")
    shutil.copytree("backup.db", "rows.db")
    with pytest.raises(StoreChangedError, match=r"6 rows to .*holds 4 now"):
        filed.run()


def test_another_file_of_the_same_name_is_noticed(filed: Job) -> None:
    """With as many rows of the same keys."""
    filed.write()
    Path("rows.db").rename("moved.db")
    filed.other().write()
    with pytest.raises(StoreChangedError, match="another one"):
        filed.run()


def test_a_store_may_be_moved_with_its_rows(filed: Job) -> None:
    """It is the same collection at another place: accepted as a change, it needs no more words."""
    filed.write()
    Path("rows.db").rename("moved.db")
    filed.write(to="moved.db", accept_changes=True)
    filed.write(to="moved.db")


def test_several_jobs_in_one_collection_know_it_by_one_id(served: Job) -> None:
    """Each goes on while it is there; none does when it has gone."""
    draw_folder(Path("more"), 3)
    second = served.other()
    served.write()
    second.write("more")
    served.write()
    served.drop()
    for job in (served, second):
        assert job.resume() == 1


def test_a_job_of_a_partition_counts_its_own_rows(served: Job) -> None:
    """Those of other partitions do not stand in for it; a partition that has gone is told."""
    second = served.other(partition="b")
    served.write(partition="a")
    second.write()
    assert second.rows == PICTURES
    served.ask(lambda client, name: client.drop_partition(name, "a"))
    with pytest.raises(StoreChangedError, match="not there any more"):
        served.run(partition="a")
    second.write()


def test_without_an_id_rows_are_counted(served: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Job folders and collections from before there were ids go on as they are, unless rows are missing."""
    monkeypatch.setattr("penstock.engine.jobs.common.sink_cache.with_id", str)
    served.write()
    assert STORE not in {event["event"] for event in read_status("job").events}
    served.write()
    served.delete("0001.png")
    with pytest.raises(StoreChangedError, match="holds 5 now"):
        served.run()


def test_a_name_that_is_listed_twice_is_one_row(served: Job) -> None:
    """Two entries of the listing that say the same are no lost row; one row less is."""
    served.write()
    with JobFolder.create_or_open("job") as job:
        manifest, entries = job.manifest, [job.snapshot[0], *job.snapshot]
    shutil.rmtree("job")
    with JobFolder.create_or_open("job") as job:
        job.accept(manifest.fingerprints, manifest.settings)
        job.write_snapshot(entries)
        job.written(range(PICTURES + 1))
    assert served.run().accounting.read == 0
    served.delete("0001.png")
    with pytest.raises(StoreChangedError, match=r"written 6 rows to .*holds 5 now"):
        served.run()


def test_a_job_that_was_killed_before_its_books_knew_the_collection_goes_on(served: Job) -> None:
    """The collection is there, with rows, and the books know of none: it takes the collection that it finds."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(JobCheckpoint, "written", die)
        served.write()
    assert served.rows == 1
    assert read_status("job").counts.written == 0
    served.write()
    assert served.run().accounting.read == 0
    assert served.rows == PICTURES


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", [shutil.rmtree, Path.unlink])
def test_a_bulk_folder_that_lacks_rows_is_noticed(change: Callable[[Path], object], finished: bool) -> None:
    """A part that has gone, or all of it; a redone job leaves a folder that is whole again."""
    pytest.importorskip("pyarrow")
    job = Job(to="bulk:parts")
    job.write(most=PICTURES if finished else 4)
    if not finished:
        Path("parts/manifest.json").unlink()  # as a job leaves it that is killed
    job.write(most=0)
    change(Path("parts") if change is shutil.rmtree else sorted(Path("parts").glob("part-*"))[0])
    with pytest.raises(StoreChangedError, match=r"rows to bulk:parts, .* but it (is not there|holds 0 now)"):
        job.run()
    assert job.resume("--redo") == 0
    assert job.resume() == 0
    assert job.rows == PICTURES
    assert read_manifest("parts").rows == PICTURES


@pytest.mark.kills
def test_a_job_that_is_killed_while_it_makes_its_collection_goes_on(tmp_path: Path) -> None:
    """By SIGKILL, as soon as something of the store is there."""
    pictures = draw_folder(tmp_path / "many", 60)
    flags = ["--workers", "1", "--batch-size", "8", "--insert-batch-size", "8"]
    with started(embed(pictures, tmp_path / "killed", *flags)) as process:
        wait_for(process, lambda: (tmp_path / "killed" / "rows.db").exists())
        process.send_signal(signal.SIGKILL)
        process.wait()
    for _ in range(2):
        assert main(["resume", str(tmp_path / "killed" / "job")]) == 0
        assert stored(tmp_path / "killed") == written(tmp_path / "killed") == len(list(pictures.iterdir()))


@pytest.mark.parametrize("option", ["--redo", "--accept-store"])
def test_what_only_a_job_with_books_can_do_is_refused_without_them(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are about what is recorded."""
    assert main(["embed", "pictures", "--to", "rows.db", option]) == 2
    assert "is about the books of a job" in capsys.readouterr().err
