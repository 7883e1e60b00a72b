"""Real S3 servers: what both do alike, and what only the one that is a store does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import penstock
from penstock.engine.journal import JobFolder
from penstock.engine.servers import S3Server
from penstock.engine.sources import Item, open_source
from penstock.errors import (
    ObjectChangedError,
    ObjectDeniedError,
    ObjectExistsError,
    ObjectNotFoundError,
    ReadError,
    TooLargeError,
)
from penstock.fetch import Fetchers
from penstock.object_stores import ObjectStore, StoreOptions
from penstock.tests.drawn import encoded
from penstock.tests.packed import write_tar

pytest.importorskip("obstore")
pytest.importorskip("boto3")

pytestmark = pytest.mark.slow

NOISE = np.random.default_rng(0)


def picture() -> bytes:
    """The file of a small picture of noise."""
    return encoded(Image.fromarray(NOISE.integers(0, 256, (32, 32, 3), np.uint8)), "PNG")


@pytest.mark.usefixtures("s3_server")
def test_objects_are_written_listed_read_and_deleted(bucket: str) -> None:
    """With names of many kinds; each as it was listed or not at all."""
    store = ObjectStore(f"s3://{bucket}")
    names = ["a b.jpg", "é.jpg", "\U0001f600.jpg", "100%25.jpg", "a?b=c&d#e.jpg", "deep/er/x.jpg", "a+b.jpg", "[x].jpg"]
    for name in names:
        store.put(name, name.encode())
    found = {one.key: one for one in store.list()}
    assert sorted(found) == sorted(names)
    for name, one in found.items():
        data = store.get(name, max_bytes=99, size=one.size, etag=one.etag, modified_ns=one.modified_ns)
        assert data == name.encode()
        assert store.head(name)[:2] == one[:2]
    assert store.get("deep/er/x.jpg", max_bytes=9, span=(5, 7)) == b"er"
    assert [one.key for one in store.list("deep/er")] == ["deep/er/x.jpg"]
    assert store.folders() == ("deep",)
    store.copy("a b.jpg", "copy")
    store.delete([*names, "not there"])
    assert [one.key for one in store.list()] == ["copy"]


@pytest.mark.usefixtures("s3_server")
def test_conditions_are_kept(bucket: str) -> None:
    """Of sixteen writers of a new object one wins; what was replaced is not read, and not replaced once more."""
    store = ObjectStore(f"s3://{bucket}")

    def claim(number: int) -> bool:
        try:
            store.put("claim", str(number).encode(), new=True)
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(claim, range(16)))
    assert won.count(True) == 1
    assert store.get("claim", max_bytes=9).decode() == str(won.index(True))
    first = store.head("claim").etag
    store.put("claim", b"another", etag=first)
    with pytest.raises(ObjectChangedError):
        store.put("claim", b"a third", etag=first)
    with pytest.raises(ObjectChangedError):
        store.get("claim", max_bytes=9, etag=first)


@pytest.mark.usefixtures("s3_server")
def test_what_is_not_there_or_too_large_has_its_kind(bucket: str) -> None:
    """Also a bucket."""
    store = ObjectStore(f"s3://{bucket}", StoreOptions(retries=0))
    store.put("large", bytes(1000))
    with pytest.raises(ObjectNotFoundError):
        store.get("gone", max_bytes=9)
    with pytest.raises(TooLargeError):
        store.get("large", max_bytes=999)
    with pytest.raises(ObjectNotFoundError, match="NoSuchBucket"):
        list(ObjectStore("s3://there-is-no-such-bucket").list())


@pytest.mark.usefixtures("s3_server")
def test_an_upload_that_stays_open_is_invisible(bucket: str) -> None:
    """Through boto3, with the credentials and the endpoint of the store."""
    store = ObjectStore(f"s3://{bucket}")
    client: Any = store.boto3()
    at = {"Bucket": bucket, "Key": "part"}
    upload = client.create_multipart_upload(**at)["UploadId"]
    tag = client.upload_part(**at, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    assert list(store.list()) == []
    parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
    client.complete_multipart_upload(**at, UploadId=upload, MultipartUpload=parts)
    (found,) = store.list()
    assert store.get("part", max_bytes=9, etag=found.etag) == b"x"


def test_odd_keys_are_listed_and_read_where_a_store_has_them(
    s3_servers: Any, aws: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Amazon's keys may be anything, and so may moto's."""
    for name, value in s3_servers("moto").environment.items():
        aws.setenv(name, value)
    bucket = request.getfixturevalue("bucket")
    client: Any = ObjectStore(f"s3://{bucket}").boto3()
    names = ["a//b.jpg", "x/../c.jpg", "bell\x07.jpg", "plain.jpg", "./d.jpg", "a&b<c>.jpg", "\u2028.jpg"]
    for name in names:
        client.put_object(Bucket=bucket, Key=name, Body=name.encode())
    source = open_source([f"s3://{bucket}"])
    items = [entry for entry in source if isinstance(entry, Item)]
    assert [item.key for item in items] == sorted((f"s3://{bucket}/{name}" for name in names), key=str.encode)
    assert source.locator is not None
    fetcher = source.locator.open()
    for item in items:
        assert item.reference is not None
        assert fetcher.read(item.reference.ref, item.reference.version, 99).decode() == item.key.split("/", 3)[3]


def test_a_wrong_secret_is_denied_and_told_nowhere(seaweed: S3Server, aws: pytest.MonkeyPatch, bucket: str) -> None:
    """By a server that looks, whose answer has all it was sent."""
    ObjectStore(f"s3://{bucket}").put("a", b"x")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "MARKER5b1f9e")
    store = ObjectStore(f"s3://{bucket}", StoreOptions(retries=0))
    calls: list[Callable[[], object]] = [
        lambda: store.get("a", max_bytes=9),
        lambda: store.get("a//b", max_bytes=9),
        lambda: list(store.list()),
        lambda: list(store.list_plainly()),
        lambda: store.put("b", b""),
    ]
    for call in calls:
        with pytest.raises(ObjectDeniedError) as raised:
            call()
        assert "MARKER" not in repr(raised.value)
        assert not re.search(r"Signature=\w{8}", str(raised.value))


@pytest.mark.usefixtures("own_fork_server", "seaweed")
def test_a_job_over_a_store_that_lists_by_folder(bucket: str, tmp_path: Path) -> None:
    """Listed once, its order noted; updated by a merge in that order; its secret in none of its files."""
    store = ObjectStore(f"s3://{bucket}")
    for number in range(20):
        for sign in "/-":
            store.put(f"{number:02}{sign}x.png", picture())

    def run(**settings: Any) -> penstock.Report:
        own: dict[str, Any] = {"to": str(tmp_path / "rows.db"), "job": tmp_path / "job", "workers": 1}
        return penstock.embed_images(f"s3://{bucket}", progress="none", **own, **settings)

    assert run().accounting.written == 40
    with JobFolder.create_or_open(tmp_path / "job") as folder:
        assert folder.order == "path"
    store.put("07/x.png", picture())
    store.put("07-new.png", picture())
    store.delete("08-x.png")
    report = run(update=True)
    assert (report.accounting.written, report.extra["job"]["entries"]) == (2, 40)
    held = [path for path in tmp_path.rglob("*") if path.is_file() and b"penstock-secret" in path.read_bytes()]
    assert held == []
    assert "penstock-secret" not in json.dumps(report.extra, default=str)


@pytest.mark.usefixtures("s3_server")
def test_tars_and_tables_are_read_by_ranges(bucket: str, tmp_path: Path) -> None:
    """Found by a glob, metadata with them; what was replaced is not read in its place."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    store, data = ObjectStore(f"s3://{bucket}"), [picture() for _ in range(20)]
    pq.write_table(pa.table({"n": range(20), "image": data}), tmp_path / "a.parquet", row_group_size=8)
    sidecars = [(f"{number:02}.json", b'{"n": %d}' % number) for number in range(20)]
    members = [(f"{number:02}.png", each) for number, each in enumerate(data)]
    write_tar(tmp_path / "a.tar", sorted([*members, *sidecars]))
    for name in ("a.tar", "a.parquet"):
        store.put(f"deep/{name}", (tmp_path / name).read_bytes())
        source = open_source([f"s3://{bucket}/deep/*{name[1:]}{'?columns=n' * (name == 'a.parquet')}"])
        listed = [entry for entry in source if isinstance(entry, Item)]
        fetchers = Fetchers(1 << 20)
        loaded = [*source.loaded(listed, 1 << 20)]
        assert [item.metadata for item in loaded] == [{"n": number} for number in range(20)]
        assert [fetchers.read(item.reference) for item in listed if item.reference is not None] == data
        assert source.in_memory == all(bytes(item.data or b"") == each for item, each in zip(loaded, data, strict=True))
        store.put(f"deep/{name}", (tmp_path / name).read_bytes()[::-1])
        assert listed[9].reference is not None
        with pytest.raises(ReadError, match="has changed since it was listed"):
            Fetchers(1 << 20).read(listed[9].reference)
