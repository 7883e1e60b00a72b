"""Volumes in an object store: which there are, their pages, and what can become of an object."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penstock.bench.volume_parts import Around
from penstock.engine import Report
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.volumes.run_volumes import run_volumes
from penstock.engine.jobs.volumes.source import VolumeSource
from penstock.errors import ObjectStoreError, PipelineFailure, ReadError, SourceError
from penstock.sinks import read_dead_letters
from penstock.tests.scans import WatchedBatcher, config
from penstock.tests.small_s3 import BUCKET, SmallS3, busy, refused
from penstock.tests.test_volume_publish import rows
from penstock.volumes import ImageTask, PipelineConfig, S3Context, VolumeWorker

pytest.importorskip("obstore")
pytest.importorskip("pyarrow")


def picture(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((20, 30), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def fill(store: SmallS3, volume: str, pages: int) -> None:
    for number in range(pages):
        store.put(f"{volume}/page-{number:02}.png", picture(number))


def run(out: Path, *specs: str, **settings: Any) -> Report:
    return run_volumes(config(to=f"parquet:{out}", **settings), [f"s3://{BUCKET}/{spec}" for spec in specs])


def read(tasks: Sequence[ImageTask], **settings: Any) -> VolumeWorker:
    """What a worker makes of these tasks of a bucket."""
    cfg = config(s3_bucket=BUCKET, **settings)
    done = VolumeWorker(cfg, S3Context(cfg), "vol", tasks, batcher=WatchedBatcher(cfg), transform=Around(lambda _: 0))
    done.run_sync()
    return done


def test_prefixes_of_a_pattern_are_volumes(small_s3: SmallS3, tmp_path: Path) -> None:
    """Each with the objects below it, at any depth; those of other prefixes are none."""
    for name, pages in (("deep/vol_1", 4), ("deep/vol_2", 2), ("deep/other", 1), ("vol_3", 1)):
        fill(small_s3, name, pages)
    small_s3.put("deep/vol_1/sub/last.png", picture(9))
    small_s3.put("deep/vol_1/list.txt", b"none")
    report = run(tmp_path / "out", "deep/vol_*/")
    assert (report.accounting.written, report.accounting.filtered) == (7, 1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["vol_1", "vol_2"]
    found = rows(tmp_path / "out" / "vol_1")
    assert [row["key"] for row in found][-1] == f"s3://{BUCKET}/deep/vol_1/sub/last.png"
    assert [row["etag"] for row in found] == [
        small_s3.objects[row["key"].removeprefix(f"s3://{BUCKET}/")].etag for row in found
    ]


def test_prefixes_with_signs_of_patterns_in_their_names_are_volumes(small_s3: SmallS3, tmp_path: Path) -> None:
    """They are what they are called."""
    for name in ("vol [1]", "vol 1", "vol*"):
        fill(small_s3, name, 2)
    report = run(tmp_path / "out", "vol*")
    assert report.accounting.written == 6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["vol 1", "vol [1]", "vol*"]
    for name in ("vol [1]", "vol*"):
        assert [row["key"] for row in rows(tmp_path / "out" / name)] == [
            f"s3://{BUCKET}/{name}/page-00.png",
            f"s3://{BUCKET}/{name}/page-01.png",
        ]


def test_a_volume_without_pages_is_named(small_s3: SmallS3, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where others have some."""
    fill(small_s3, "vol_1", 1)
    small_s3.put("vol_2/list.txt", b"none")
    assert run(tmp_path / "out", "vol_*").accounting.written == 1
    assert "volumes without pages: vol_2" in caplog.text


def test_a_finished_volume_is_not_even_listed(small_s3: SmallS3, tmp_path: Path) -> None:
    """A new one beside it is done."""
    fill(small_s3, "vol_1", 3)
    run(tmp_path / "out", "vol_*")
    fill(small_s3, "vol_2", 2)
    before = {key: times for key, times in small_s3.seen.items() if key[1].startswith("vol_1")}
    assert run(tmp_path / "out", "vol_*").accounting.written == 2
    assert {key: times for key, times in small_s3.seen.items() if key[1].startswith("vol_1")} == before


def test_an_object_that_changed_since_it_was_listed_is_a_dead_letter(small_s3: SmallS3, tmp_path: Path) -> None:
    """As is one that has gone; all others are rows."""
    fill(small_s3, "vol", 5)

    cfg, spec = config(to=f"parquet:{tmp_path / 'out'}", job=tmp_path / "job"), f"s3://{BUCKET}/vol"
    with JobCheckpoint(cfg, make_plan(cfg), VolumeSource([spec])):
        pass  # it has listed them
    small_s3.put("vol/page-01.png", picture(77))
    del small_s3.objects["vol/page-03.png"]
    report = run_volumes(cfg, [spec])
    assert (report.accounting.written, report.accounting.dead) == (3, 2)
    assert [row["page"] for row in rows(tmp_path / "out" / "vol")] == [0, 2, 4]
    letters = {
        letter.key.rpartition("/")[2]: letter for letter in read_dead_letters(tmp_path / "job/dead-letters.jsonl")
    }
    assert set(letters) == {"page-01.png", "page-03.png"}
    assert "not what it was" in letters["page-01.png"].message
    assert "is not there" in letters["page-03.png"].message


def test_without_an_etag_whatever_is_there_is_taken(small_s3: SmallS3) -> None:
    """And with one just that."""
    etag = small_s3.put("a.png", picture(1))
    small_s3.put("b.png", picture(2))
    tasks = [ImageTask("a.png"), ImageTask("a.png", etag=etag), ImageTask("b.png", etag=etag), ImageTask("c.png")]
    done = read(tasks)
    assert sorted(record.page for record in done.records) == [0, 1]
    assert {key: type(error) for key, error in done.failures.items()} == {"b.png": ReadError, "c.png": ReadError}


def test_the_documents_example_as_written_ends_with_dead_letters(
    small_s3: SmallS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its etag is of no object: none of its pages is what was meant, and nothing is published."""
    monkeypatch.chdir(tmp_path)
    fill(small_s3, "vol_A", 4)

    async def main() -> VolumeWorker:
        cfg = PipelineConfig(
            s3_bucket="bucket",
            out_prefix="s3://bucket/out",
            staging_prefix="s3://bucket/staging",
        )
        tasks = [ImageTask(key=f"vol_A/page-{i:02d}.png", etag="etagA", size=None, volume_id="vol_A") for i in range(4)]
        global_sem = asyncio.Semaphore(cfg.s3_max_inflight_global)
        s3 = S3Context(cfg, global_sem)
        worker = VolumeWorker(cfg, s3, "vol_A", tasks)
        await worker.run()
        return worker

    done = asyncio.run(main())
    assert len(done.failures) == 4
    assert done.report is not None
    assert done.report.extra["volumes"]["published"] == 0
    assert len([*read_dead_letters(tmp_path / "volumes.dead-letters.jsonl")]) == 4
    assert not [key for key in small_s3.objects if key.startswith("out")]


def test_a_key_of_a_bucket_is_never_a_file_or_another_store(small_s3: SmallS3, tmp_path: Path) -> None:
    """Whoever may write into the bucket chooses what its keys look like."""
    own = tmp_path / "own.png"
    own.write_bytes(picture(1))
    del small_s3
    done = read([ImageTask(str(own)), ImageTask(own.as_uri()), ImageTask(f"s3://{BUCKET}/other.png")])
    assert len(done.failures) == 3
    assert not done.records


def test_a_store_that_was_busy_is_asked_again(small_s3: SmallS3) -> None:
    """By the client, and beyond that by the policy of the stage."""
    fill(small_s3, "vol", 2)
    small_s3.faults["vol/page-00.png"] = busy(2)
    done = read([ImageTask("vol/page-00.png"), ImageTask("vol/page-01.png")])
    assert len(done.records) == 2
    assert not done.failures


@pytest.mark.slow
def test_a_store_that_is_busy_for_long_is_asked_again_by_the_policy(small_s3: SmallS3) -> None:
    """Beyond what the client does by itself: here its first two rounds of attempts are in vain."""
    fill(small_s3, "vol", 1)
    small_s3.faults["vol/page-00.png"] = busy(9)
    done = read([ImageTask("vol/page-00.png")], on_failure={"preprocess": "retry:5"})
    assert not done.failures
    assert len(done.records) == 1
    assert small_s3.count("vol/page-00.png") == 10


def test_what_may_not_be_read_is_a_failure_of_its_own(small_s3: SmallS3) -> None:
    """403 of one object."""
    fill(small_s3, "vol", 2)
    small_s3.faults["vol/page-00.png"] = refused(403, "AccessDenied")
    done = read([ImageTask("vol/page-00.png"), ImageTask("vol/page-01.png")])
    assert [record.page for record in done.records] == [1]
    assert "denied" in str(done.failures["vol/page-00.png"])


def test_keys_that_the_quick_client_cannot_name_are_read(small_s3: SmallS3, tmp_path: Path) -> None:
    """An empty part, two dots, a line's end; and a store without etags."""
    pytest.importorskip("boto3")
    odd = ["vol/a//b.png", "vol/../c.png", "vol/d\ne.png", "vol/f.png"]
    for number, key in enumerate(odd):
        small_s3.put(key, picture(number))
    report = run(tmp_path / "out", "vol")
    assert (report.accounting.written, report.accounting.dead) == (4, 0)
    assert {row["key"].removeprefix(f"s3://{BUCKET}/") for row in rows(tmp_path / "out" / "vol")} == set(odd)


def test_a_store_without_etags_is_read_by_size(small_s3: SmallS3, tmp_path: Path) -> None:
    """The record has none."""
    small_s3.etags = False
    fill(small_s3, "vol", 2)
    run(tmp_path / "out", "vol")
    assert [row["etag"] for row in rows(tmp_path / "out" / "vol")] == [None, None]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("s3://nowhere/vol", "NoSuchBucket"),
        (f"s3://{BUCKET}/nothing", "has no pages"),
        (f"s3://{BUCKET}/vol_*", "there is no such volume"),
        (f"s3://user:secret@{BUCKET}/vol", "credentials in a URL"),
    ],
)
def test_volumes_that_cannot_be_had_are_said_so(spec: str, message: str, small_s3: SmallS3, tmp_path: Path) -> None:
    """In one line, without secrets."""
    del small_s3
    with pytest.raises((SourceError, ObjectStoreError, PipelineFailure, ValueError)) as caught:
        run_volumes(config(to=f"parquet:{tmp_path / 'out'}"), [spec])
    error: BaseException = caught.value
    error = error.exceptions[0] if isinstance(error, PipelineFailure) else error
    assert message in str(error)
    assert "secret" not in str(error)


def test_a_page_is_found_back_in_its_volume_by_its_name_alone(small_s3: SmallS3) -> None:
    """In a run that lists nothing."""
    source = VolumeSource([f"s3://{BUCKET}/scans/vol_*", "/scans/one"])
    assert source.root_of(f"s3://{BUCKET}/scans/vol_7/a/b.png") == ("vol_7", f"s3://{BUCKET}/scans/vol_7")
    assert source.root_of("/scans/one/page.png") == ("one", "/scans/one")
    with pytest.raises(SourceError, match="none of the volumes"):
        source.root_of(f"s3://{BUCKET}/scans/other/a.png")
    assert not small_s3.count()
