"""Volumes from one bucket into another, on real servers: what is published, and by whom."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from penstock import PipelineFailure
from penstock.bench.volume_parts import Around
from penstock.engine.cli import main
from penstock.errors import PublishConflictError
from penstock.object_stores import ObjectStore
from penstock.tests.scans import WatchedBatcher, config
from penstock.tests.test_volume_stores import picture
from penstock.tests.waiting import DEADLINE
from penstock.volumes import ImageTask, S3Context, VolumeWorker

pq = pytest.importorskip("pyarrow.parquet")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_server")]


def fill(bucket: str, volume: str, pages: int) -> ObjectStore:
    store = ObjectStore(f"s3://{bucket}")
    for number in range(pages):
        store.put(f"{volume}/page-{number:02}.png", picture(number))
    return store


def rows(store: ObjectStore, prefix: str) -> list[dict[str, Any]]:
    """The rows of a published volume, as its manifest has them."""
    manifest = json.loads(store.get(f"{prefix}/_SUCCESS.json", max_bytes=2**20))
    found: list[dict[str, Any]] = []
    for part in manifest["parts"]:
        data = store.get(f"{prefix}/{part['name']}", max_bytes=2**26, size=part["bytes"])
        found += pq.read_table(io.BytesIO(data)).to_pylist()
    return found


def names(store: ObjectStore, prefix: str) -> set[str]:
    return {info.key.rpartition("/")[2].split("-")[0] for info in store.list(prefix)}


def test_the_command_publishes_volumes_of_a_bucket_in_a_bucket(
    bucket: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """A data set for each, nothing besides; the second time there is nothing to do."""
    monkeypatch.chdir(tmp_path)
    store = fill(bucket, "scans/vol_1", 5)
    fill(bucket, "scans/vol_2", 3)
    place = f"parquet:s3://{bucket}/out"
    line = ["volumes", f"s3://{bucket}/scans/vol_*/", "--to", place, "--embedder", "gist:32", "--progress", "none"]
    assert main(line) == 0
    assert f"2 volumes: 2 published in {place}" in capsys.readouterr().out
    assert [row["page"] for row in rows(store, "out/vol_1")] == list(range(5))
    assert rows(store, "out/vol_2")[0]["key"] == f"s3://{bucket}/scans/vol_2/page-00.png"
    assert names(store, "out/vol_1") == {"part", "_SUCCESS", "_SUCCESS.json"}
    before = {info.key: info.etag for info in store.list("out")}
    assert main(line) == 0
    assert {info.key: info.etag for info in store.list("out")} == before


def test_an_update_publishes_a_volume_of_a_bucket_anew(
    bucket: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """With its new and changed pages and without those that are gone; others stay, and nothing lies besides."""
    monkeypatch.chdir(tmp_path)
    store = fill(bucket, "update/vol", 4)
    fill(bucket, "update/vol-1", 2)
    line = ["volumes", f"s3://{bucket}/update/vol*/", "--to", f"parquet:s3://{bucket}/updated", "--job", "job"]
    assert main([*line, "--embedder", "gist:32", "--progress", "none"]) == 0
    before = {info.key: info.etag for info in store.list("updated/vol-1")}
    store.delete("update/vol/page-01.png")
    store.put("update/vol/page-02.png", picture(99))
    store.put("update/vol/page-00a.png", picture(98))
    assert main(["resume", "job", "--update", "--progress", "none"]) == 0
    assert "pages: 1 new, 1 changed, 1 gone, 4 same" in capsys.readouterr().out
    found = {row["page"]: row["key"].rpartition("/")[2] for row in rows(store, "updated/vol")}
    assert found == {0: "page-00.png", 1: "page-00a.png", 2: "page-02.png", 3: "page-03.png"}
    assert {info.key: info.etag for info in store.list("updated/vol-1")} == before
    assert names(store, "updated/vol") == {"part", "_SUCCESS", "_SUCCESS.json"}


def test_of_two_workers_in_one_process_one_publishes(bucket: str) -> None:
    """The other one says that it was too late, and leaves nothing."""
    store = fill(bucket, "vol", 3)
    cfg = config(s3_bucket=bucket, out_prefix=f"s3://{bucket}/out")
    tasks = [ImageTask(f"vol/page-{number:02}.png", volume_id="vol") for number in range(3)]
    watched = [WatchedBatcher(cfg) for _ in range(2)]

    async def both() -> list[Any]:
        semaphore = asyncio.Semaphore(cfg.s3_max_inflight_global)
        workers = [
            VolumeWorker(cfg, S3Context(cfg, semaphore), "vol", tasks, batcher=each, transform=Around(lambda _: 0))
            for each in watched
        ]
        for each in watched:
            each.may_run.clear()
        async with asyncio.timeout(DEADLINE):
            running = asyncio.gather(*(each.run() for each in workers), return_exceptions=True)
            for each in watched:  # neither has found the volume finished
                await asyncio.to_thread(each.began.wait)
            for each in watched:
                each.may_run.set()
            return await running

    ends = asyncio.run(both())
    failed = [end for end in ends if isinstance(end, BaseException)]
    assert len(failed) == 1
    cause = failed[0].exceptions[0] if isinstance(failed[0], PipelineFailure) else failed[0]
    assert isinstance(cause, PublishConflictError)
    assert [row["page"] for row in rows(store, "out/vol")] == [0, 1, 2]
    assert names(store, "out/vol") == {"part", "_SUCCESS", "_SUCCESS.json"}
