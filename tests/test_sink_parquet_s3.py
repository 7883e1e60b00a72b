"""A Parquet data set in a bucket, on real servers: seen as a whole or not at all, and nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import pytest

from penstock import embed_images
from penstock.engine.cli import main
from penstock.engine.journal import read_status
from penstock.errors import ConfigError, PublishConflictError, SinkError, SinkUnavailableError
from penstock.object_stores import ObjectStore, StoreOptions
from penstock.object_stores.urls import StoreURL
from penstock.sinks import Sink, SinkOptions, make_sink
from penstock.sinks.parquet import lease
from penstock.sinks.parquet.leftovers import leftovers, sweep
from penstock.sinks.parquet.objects import ObjectPlace
from penstock.sinks.parquet.s3 import S3Place
from penstock.sinks.parquet.sink import ParquetSink
from penstock.testing.sinks import DIMENSION, StoreContract
from penstock.tests import publishing
from penstock.tests.publishing import (
    BATCH,
    JOB,
    OTHER,
    ROWS,
    PublishingSink,
    batch,
    publish_at_once,
    run,
    searched,
    seen,
    sink_on,
    watched,
)
from penstock.tests.small_s3 import BUCKET, SmallS3, busy, refused
from penstock.tests.whole_jobs import draw_folder, started, wait_for, with_small_writes
from penstock.tests.whole_jobs import penstock as command

pytest.importorskip("pyarrow")
pytest.importorskip("obstore")
pytest.importorskip("boto3")

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(s3_server: Any) -> str:
    """One for all tests on a server: SeaweedFS has room for some thirty. Each test has a prefix of its own in it."""
    client = ObjectStore("s3://parquet").boto3()
    if "parquet" not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket="parquet")
    return "parquet"


@pytest.mark.usefixtures("s3_server")
class TestS3(StoreContract):
    """The contract, where each session publishes what it has written."""

    @pytest.fixture
    def place(self, s3_server: Any, bucket: str) -> str:
        return f"s3://{bucket}/{uuid4().hex}/rows"

    def make(self, place: Any, note: str = "") -> Sink:
        return PublishingSink(S3Place(StoreURL.parse(place)), DIMENSION, job=JOB, note=note)


@pytest.fixture
def url(s3_server: Any, bucket: str) -> Iterator[str]:
    """Of a new prefix of a bucket in which no upload may be open at the end."""
    yield f"s3://{bucket}/{uuid4().hex}/rows"
    assert uploads(bucket) == []


@pytest.fixture
def place(url: str) -> S3Place:
    return place_at(url)


def place_at(url: str) -> S3Place:
    return S3Place(StoreURL.parse(url))


def uploads(bucket: str) -> list[str]:
    """Keys of open uploads."""
    found = ObjectStore(f"s3://{bucket}").boto3().list_multipart_uploads(Bucket=bucket)
    return [upload["Key"] for upload in found.get("Uploads", ())]


def keys(place: ObjectPlace) -> list[str]:
    return [each.name for each in place.stored()]


def digests(place: ObjectPlace) -> list[tuple[str, str]]:
    """Names and digests of the parts, by the manifest, all of which are there."""
    said = json.loads(place.read("_SUCCESS.json") or b"")
    parts = [(part["name"], part["sha256"]) for part in said["parts"]]
    assert keys(place) == ["_SUCCESS", "_SUCCESS.json", *sorted(name for name, _ in parts)]
    return parts


def test_nothing_is_copied_and_nothing_seen_before_it_is_complete(
    place: S3Place, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are open uploads until then, and the staging folder is empty afterwards."""

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a copy")

    monkeypatch.setattr(ObjectStore, "copy", refuse)
    shown: list[str] = []

    def told(name: str, at: str) -> None:
        if (name, at) == ("create _publishing.json", "before"):
            shown.extend(name for name in keys(place) if not name.startswith("_"))
            assert len(uploads(url.split("/")[2])) == 3

    run(watched(place_at(url), told))
    assert shown == []
    assert len(digests(place)) == 3
    assert seen(url) == ROWS


KILLS = [
    ("create _publishing.json", "before"),
    ("create _publishing.json", "after"),
    ("complete 00000.parquet", "after"),
    ("replace _SUCCESS.json", "before"),
    ("replace _SUCCESS.json", "after"),
]


@pytest.mark.kills
@pytest.mark.parametrize("s3_server", ["seaweed"], indirect=True)
@pytest.mark.parametrize(("step", "when"), KILLS)
def test_a_publisher_that_is_killed_goes_on_or_is_swept_away(place: S3Place, url: str, step: str, when: str) -> None:
    """By SIGKILL, at each turn of publishing. Going on makes the parts of an undisturbed run."""
    other = place_at(url.replace("/rows", "/undisturbed"))
    run(other)
    for again in (True, False):
        killed = subprocess.run([sys.executable, publishing.__file__, url, step, when], check=False)
        assert killed.returncode == -signal.SIGKILL
        complete = (step, when) == KILLS[-1]
        assert seen(url) == (ROWS if complete else None)
        (left,) = leftovers(place)
        assert (left.job, left.is_live, left.keeps_books) == (JOB, False, True)
        if again:
            run(place, batches=[])
            assert seen(url) == ROWS
            assert digests(place) == digests(other)
            place.delete(keys(place))
        else:
            assert sweep(place, JOB)
            assert (keys(place) == []) == (not complete)
        assert leftovers(place) == []


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_request_that_fails_leaves_all_or_nothing_and_is_made_again(place: S3Place, url: str, every: bool) -> None:
    """Each request of publishing, or one of each kind: it was never made, or its answer was lost."""
    steps: list[tuple[str, str]] = []
    run(watched(place_at(url), lambda *told: steps.append(told)))
    undisturbed = digests(place)
    for number in searched(steps, steps.index(("create _publishing.json", "before")) - 6, every=every):
        place.delete(keys(place))
        left = [number]

        def fail(*_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise SinkError("a fault")

        with pytest.raises(SinkError, match="a fault"):
            run(watched(place_at(url), fail))
        assert seen(url) in (None, ROWS), steps[number]
        all_written = seen(url) or place.read("_publishing.json") is not None
        run(place, batches=[] if all_written else range(ROWS // BATCH))
        assert (seen(url), digests(place)) == (ROWS, undisturbed), steps[number]


@pytest.mark.parametrize("turns", [2, pytest.param(12, marks=pytest.mark.nightly)])
def test_of_several_publishers_one_wins_and_the_others_leave_nothing(url: str, turns: int) -> None:
    """All had begun before one was done; no open upload is left."""
    for turn in range(turns):
        where = f"{url}/{turn}"
        winner = publish_at_once(partial(place_at, where))
        assert seen(where) == BATCH
        place = place_at(where)
        for left in leftovers(place):  # their rows, with which they could go on elsewhere
            assert (left.has_claim, left.unfinished, left.keeps_books) == (False, 0, True)
            assert sweep(place, left.job)
        assert [winner in name for name, _ in digests(place)] == [True]


def test_what_a_live_job_has_is_never_swept_away(
    place: S3Place, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its sign of life; once that is old the job counts as dead, and shows nothing any more."""
    with sink_on(place) as sink:
        sink.write(batch(0))
        (left,) = leftovers(place)
        assert left.is_live
        assert not sweep(place, JOB)
        assert main(["clean", f"parquet:{url}", "--job", JOB]) == 1
        assert "alive, left alone" in capsys.readouterr().out
        monkeypatch.setattr(lease, "_here", lambda: {"machine": "another", "pid": 1, "began": 0.0})
        assert not sweep(place, JOB)
        monkeypatch.setattr(lease, "LEASE", -60.0)
        assert sweep(place, JOB)
        with pytest.raises(SinkError, match="has taken over what this job had there"):
            run_finish(sink)
    assert sweep(place, JOB)  # what it has written since
    assert keys(place) == []


def run_finish(sink: ParquetSink) -> None:
    """Of rows that it has written since."""
    sink.write(batch(1))
    sink.finish()


def test_a_store_without_conditions_is_refused(place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written there: two jobs could both publish."""
    put = ObjectStore.put
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put", lambda self, key, data, **_: put(self, key, data))
        with pytest.raises(SinkError, match="takes no heed of If-None-Match"):
            sink_on(place).open()
    assert keys(place) == []


def test_an_object_store_without_open_uploads_stages_and_copies(url: str) -> None:
    """As on gs:// and az://: by obstore alone."""
    place = ObjectPlace(StoreURL.parse(url))
    run(place)
    assert len(digests(place)) == 3
    assert seen(url) == ROWS
    with pytest.raises(PublishConflictError):
        run(place, OTHER)
    with sink_on(place, OTHER, mode="overwrite") as sink:
        sink.write(batch(0))
        sink.finish()
    assert seen(url) == BATCH
    assert leftovers(place) == []


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)
def test_a_library_that_is_missing_is_missed_at_the_start(place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when all rows are written: it is needed to publish them."""
    with monkeypatch.context() as patch:
        for name in ("boto3", "botocore", "botocore.session"):
            patch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match=r"penstock\[s3\]"):
            sink_on(place).open()


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)  # SeaweedFS makes it
def test_a_bucket_that_is_not_there_is_named(s3_server: Any) -> None:
    """At once, when the sink is opened."""
    with pytest.raises(SinkError, match="no-such-bucket"):
        sink_on(S3Place(StoreURL.parse("s3://no-such-bucket/rows"))).open()


def test_a_whole_job_publishes_to_a_bucket_and_is_searched(
    url: str, place: S3Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line; run again nothing is written."""
    pictures = draw_folder(tmp_path / "pictures", 12)
    own = ["--workers", "1", "--batch-size", "4", "--embedder", "gist:32", "--progress", "none"]
    words = ["embed", str(pictures), "--to", f"parquet:{url}", "--job", str(tmp_path / "job"), *own]
    assert main(words) == 0
    assert f"penstock search parquet:{url} IMAGE" in capsys.readouterr().out
    before = digests(place)
    assert main(words) == 0
    assert "finished already" in capsys.readouterr().out
    assert digests(place) == before
    assert main(["search", f"parquet:{url}", str(pictures / "0003.png"), "-k", "3"]) == 0
    assert "0003.png" in capsys.readouterr().out.splitlines()[0]
    with pytest.raises(PublishConflictError):
        embed_images(pictures, to=f"parquet:{url}", embedder="gist:32", workers=1, progress="none")


@pytest.mark.kills
@pytest.mark.parametrize("s3_server", ["seaweed"], indirect=True)
def test_a_job_killed_again_and_again_publishes_once_to_a_bucket(url: str, place: S3Place, tmp_path: Path) -> None:
    """Killed while it writes and while it publishes; its rows wait in the bucket, its books on this machine."""
    pictures, job = draw_folder(tmp_path / "pictures", 100), tmp_path / "job"
    own = ["--workers", "1", "--batch-size", "4", "--embedder", "gist:32", "--insert-batch-size", "4"]
    to = ["--to", f"parquet:{url}", "--job", str(job)]
    words = with_small_writes("embed", str(pictures), *to, *own, "--progress", "none")

    def has_written(least: int) -> bool:
        return (job / "job.json").exists() and read_status(job).counts.written >= least

    for least in (1, 30):
        with started(words) as process:
            wait_for(process, partial(has_written, least))
        assert seen(url) is None
    with started(words) as process:
        wait_for(process, lambda: place.read("_publishing.json") is not None)
    with started(command("resume", str(job), "--progress", "none")) as process:
        process.communicate()
        assert process.returncode == 0
    assert len(digests(place)) == 1
    found = make_sink(f"parquet:{url}", SinkOptions()).look()
    assert found is not None
    assert found.rows == 100
    assert leftovers(place) == []


def test_a_store_that_is_busy_for_a_while_is_asked_again(small_s3: SmallS3) -> None:
    """For two minutes, unless `retry_for` says otherwise; then the error says what to do."""
    small_s3.faults["*"] = busy(2)
    place = ObjectPlace(StoreURL.parse(f"s3://{BUCKET}/rows"), StoreOptions(retries=5, retry_for=60.0))
    with sink_on(place) as sink:
        assert sink.write(batch(0)).written == BATCH
        small_s3.faults["*"] = refused(503, "SlowDown")
        other = ObjectPlace(StoreURL.parse(f"s3://{BUCKET}/rows"), StoreOptions(retries=1, retry_for=1.0))
        with pytest.raises(SinkUnavailableError, match="run the job again later and it goes on"):
            other.put("a", b"")
        small_s3.faults.clear()
    assert [each.nbytes > 0 for each in place.stored(f"_staging/{JOB}/")] == [True, True]
