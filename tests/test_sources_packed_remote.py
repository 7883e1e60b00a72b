"""Tars and tables in object stores: read by ranges of what was listed, with the books that files have."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.images.entries import readable
from penstock.engine.sources import Broken, Filtered, Item, Source, SourceOptions, UrlOptions, open_source
from penstock.errors import ItemError, SourceError
from penstock.fetch import Fetchers
from penstock.object_stores import StoreOptions
from penstock.preprocess.sandbox import sandbox
from penstock.testing.sources import SourceContract
from penstock.tests.packed import digests, picture, run, write_tar
from penstock.tests.small_s3 import Request, SmallS3, busy, refused

pytest.importorskip("obstore")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LIMIT = 1 << 30
BRISK = UrlOptions(StoreOptions(retries=0))


def opened(*specs: str) -> Source:
    return open_source(specs, SourceOptions(urls=BRISK))


def loaded(source: Source) -> list[Item]:
    """The candidates as they go to the workers."""
    found = readable(ServiceConfig(to="null:"), source, source, LIMIT, LIMIT)
    return [entry for entry in found if isinstance(entry, Item)]


def tarred(folder: Path, members: list[tuple[str, bytes]]) -> bytes:
    return write_tar(folder / "made.tar", members).read_bytes()


def parquet(columns: Mapping[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), file, **options)
    return file.getvalue()


class TestTars(SourceContract):
    """The contract, for two tars, of which one is cut short."""

    kinds = frozenset({Item, Filtered, Broken})

    @pytest.fixture
    def source(self, small_s3: SmallS3, tmp_path: Path) -> Source:
        data = tarred(tmp_path, [(f"{n}.{kind}", b"{}") for n in range(9) for kind in ("json", "png")])
        small_s3.put("d/a-0.tar", data)
        small_s3.put("d/a 1.tar", data[:5000])
        small_s3.put("d/a-1.txt", b"")
        return open_source(["s3://bucket/d/a?[01].tar"])


class TestParquet(SourceContract):
    """The contract, for two files, in a store without etags."""

    @pytest.fixture
    def source(self, small_s3: SmallS3) -> Source:
        small_s3.etags = False
        for number in (3, 4):
            small_s3.put(f"t-{number}.parquet", parquet({"image": [picture(number)] * 20}, row_group_size=8))
        return open_source(["parquet:s3://bucket/t-{3..4}.parquet?image=image"])


def test_metadata_are_read_beside_pictures(small_s3: SmallS3, tmp_path: Path) -> None:
    """In the order of the pictures, several at once."""
    members = [(f"{n:03}.{kind}", json.dumps({"n": n}).encode()) for n in range(100) for kind in ("jpg", "json")]
    small_s3.put("a.tar", tarred(tmp_path, members))
    assert [item.metadata for item in loaded(opened("s3://bucket/a.tar"))] == [{"n": n} for n in range(100)]


def test_a_table_is_read_by_few_requests(small_s3: SmallS3) -> None:
    """Of as many bytes as a group of rows has, up to some megabytes."""
    data = [bytes([number]) * 20_000 for number in range(200)]
    small_s3.put("a.parquet", parquet({"image": data}, row_group_size=10, compression="none", use_dictionary=False))
    source = opened("s3://bucket/a.parquet")
    listed = [*source]
    before = small_s3.count("a.parquet", "GET")
    assert [getattr(item, "data", None) for item in source.loaded(listed, LIMIT)] == data
    assert small_s3.count("a.parquet", "GET") - before < 30


def test_rows_may_name_what_lies_elsewhere(small_s3: SmallS3) -> None:
    """By URLs; of this machine a table in a store names nothing."""
    small_s3.put("x.png", b"the picture")
    small_s3.put("a.parquet", parquet({"uri": ["s3://bucket/x.png", "/etc/passwd", "x.png"]}))
    there, *others = loaded(opened("s3://bucket/a.parquet?image=uri"))
    assert there.reference is not None
    assert Fetchers(LIMIT).read(there.reference) == b"the picture"
    assert all(isinstance(item.data, ItemError) for item in others)


def test_a_glob_finds_what_lies_beside_keys_that_obstore_cannot_name(small_s3: SmallS3, tmp_path: Path) -> None:
    """As it does of pictures."""
    pytest.importorskip("boto3")
    data = tarred(tmp_path, [("a.jpg", b"1")])
    for key in ("d/a.tar", "d/b//c.txt", "d/odd//e.tar", "d/z.tar"):
        small_s3.put(key, data)
    assert [item.key for item in opened("s3://bucket/d/*.tar") if isinstance(item, Item)] == [
        "s3://bucket/d/a.tar!a.jpg",
        "s3://bucket/d/z.tar!a.jpg",
    ]


def test_what_is_replaced_is_not_read_by_an_older_listing(small_s3: SmallS3, tmp_path: Path) -> None:
    """Even where it looks the same."""
    small_s3.put("a.tar", tarred(tmp_path, [("a.jpg", b"1"), ("a.txt", b"x")]))
    small_s3.put("a.parquet", parquet({"image": [b"1"]}, compression="none"))
    sources = [opened(f"s3://bucket/a.{kind}") for kind in ("tar", "parquet")]
    listed = [[entry for entry in source if isinstance(entry, Item)] for source in sources]
    small_s3.put("a.tar", tarred(tmp_path, [("a.jpg", b"2"), ("a.txt", b"x")]))
    small_s3.put("a.parquet", parquet({"image": [b"2"]}, compression="none"))
    for source, (item,) in zip(sources, listed, strict=True):
        assert item.reference is not None
        with pytest.raises(ItemError, match="has changed since it was listed: --update takes it"):
            Fetchers(LIMIT).read(item.reference)
        (found,) = source.loaded([item], LIMIT)
        assert "has changed since it was listed: --update takes it" in str(found.data)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("s3://bucket/none.tar", "'s3://bucket/none.tar': there is no such tar"),
        ("s3://bucket/none-*.parquet", "matches nothing"),
        ("wds:s3://nothing/a.tar", "there is no such tar"),
        ("lance:s3://bucket/a.lance", "Lance tables are read from folders of this machine"),
        ("s3://bucket/a.tar.gz", "is compressed"),
    ],
)
@pytest.mark.usefixtures("small_s3")
def test_what_is_not_there_is_refused_before_the_job(spec: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        opened(spec)


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_store_that_is_busy_ends_the_listing_and_costs_no_picture(
    small_s3: SmallS3, tmp_path: Path, name: str
) -> None:
    """Half a listing would call the rest dead; who is denied is told so, in its place."""
    data = tarred(tmp_path, [("a.jpg", b"1")]) if name == "a.tar" else parquet({"image": [b"1"]})
    small_s3.put(name, data)
    source = opened(f"s3://bucket/{name}")
    small_s3.faults[name] = busy(1000)
    with pytest.raises(SourceError, match="cannot be listed"):
        list(source)
    small_s3.faults[name] = refused(403, "AccessDenied")
    assert [type(entry) for entry in source] == [Broken]
    del small_s3.faults[name]
    assert [type(entry) for entry in source] == [Item]


def test_a_store_that_is_busy_for_longer_than_its_attempts_costs_the_picture_at_hand(small_s3: SmallS3) -> None:
    """Not those behind it in the group of rows."""
    data = [bytes([number]) * 100_000 for number in range(80)]
    options: dict[str, Any] = {"compression": "none", "use_dictionary": False, "row_group_size": 40}
    small_s3.put("a.parquet", parquet({"image": data}, **options))
    source = opened("s3://bucket/a.parquet")
    listed = [*source]
    left = [1]

    def once(request: Request) -> bool:
        if request.method != "GET" or not left:
            return False
        left.pop()
        request.refuse(503, "SlowDown")
        return True

    loading = source.loaded(listed, LIMIT)
    first = next(iter(loading))
    small_s3.faults["a.parquet"] = once
    found = [first, *loading]
    (failed,) = [number for number, item in enumerate(found) if isinstance(item.data, ItemError)]
    assert getattr(found[failed].data, "errno", None) is None
    del found[failed], data[failed]
    assert [item.data for item in found] == data


@pytest.mark.slow
@pytest.mark.usefixtures("own_fork_server")
def test_a_job_over_a_store_makes_the_vectors_that_files_make(small_s3: SmallS3, tmp_path: Path) -> None:
    """Of tars and tables, its workers confined or not; going on has nothing left to do."""
    pictures = {f"{number:03}": picture(number) for number in range(60)}
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in pictures.items():
        (folder / f"{name}.png").write_bytes(data)
    small_s3.put("a.tar", tarred(tmp_path, [(f"{name}.png", data) for name, data in pictures.items()]))
    small_s3.put("a.parquet", parquet({"id": [*pictures], "image": [*pictures.values()]}, row_group_size=16))
    run(str(folder), tmp_path / "loose")
    wanted = [*digests(tmp_path / "loose", [f"{folder}/{name}.png" for name in pictures]).values()]
    specs = {"wds:s3://bucket/*.tar": "s3://bucket/a.tar!{}.png", "s3://bucket/a.parquet?key=id": "{}"}
    confinements = [False, *[True] * bool(sandbox.means())]
    for number, (spec, key) in enumerate(specs.items()):
        for confined in confinements[-1 - number :]:  # one of them in both ways
            place = tmp_path / f"{number}-{confined}"
            assert run(spec, place, sandbox=confined).accounting.written == len(pictures)
            assert [*digests(place, [key.format(name) for name in pictures]).values()] == wanted
            assert run(spec, place, sandbox=confined).accounting.read == 0
