"""Tables as sources: keys are listed, rows are read in order in bounded memory; what is wrong is said where it is."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.images.entries import readable
from penstock.engine.sources import Broken, Entry, Item, Source, open_source
from penstock.engine.sources.tables.seen import Seen
from penstock.errors import ConfigError, ItemError, SourceError, TooLargeError
from penstock.fetch import Fetchers
from penstock.testing.sources import SourceContract
from penstock.tests.packed import picture

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LIMIT = 1 << 30


def write(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    """A Parquet file of these columns."""
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path


def entries(spec: object) -> list[Entry]:
    return [*open_source([str(spec)])]


def loaded(spec: object, most: int = LIMIT) -> list[Item]:
    """The candidates as they go to the workers."""
    source = open_source([str(spec)])
    found = readable(ServiceConfig(to="null:"), source, source, most, LIMIT)
    return [entry for entry in found if isinstance(entry, Item)]


def rows(count: int, first: int = 0) -> list[bytes]:
    return [picture(number) for number in range(first, first + count)]


class TestParquet(SourceContract):
    """The contract, for two files without keys, of which one is none."""

    kinds = frozenset({Item, Broken})

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        (folder := tmp_path / "p #q").mkdir()
        write(folder / "a-0.parquet", {"image": rows(40)}, row_group_size=16)
        write(folder / "a-1.parquet", {"image": rows(20, 40)})
        (folder / "a-2.parquet").write_bytes(b"PAR1 no table PAR1")
        return open_source([f"{folder}/a-*.parquet"])


class TestKeyedParquet(SourceContract):
    """The contract, for keys of texts that any sign is in, unordered, with metadata."""

    ordered = False

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        names = ["b", "a", "a b", "a/b", "é", "\U0001f600", "b'x'", '"', "a?b=c&d", "#"]
        images = [{"bytes": data, "path": None} for data in rows(10)]
        write(tmp_path / "a.parquet", {"i d": names, "image": images, "n": range(10)}, row_group_size=4)
        return open_source([f"parquet:{tmp_path}/a.parquet?image=image&key=i+d&columns=n"])


class TestArrow(SourceContract):
    """The contract, for a file and a stream, compressed and not."""

    kinds = frozenset({Item, Broken})

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        table = pa.table({"n": range(30), "image": rows(30)})
        for number, (new, compression) in enumerate([(pa.ipc.new_file, "zstd"), (pa.ipc.new_stream, None)]):
            options = pa.ipc.IpcWriteOptions(compression=compression)
            with new(str(tmp_path / f"{number}.arrow"), table.schema, options=options) as writer:
                writer.write_table(table, max_chunksize=12)
        (tmp_path / "2.arrow").write_bytes(b"ARROW1 none")
        return open_source([f"{tmp_path}/*.arrow?columns=n"])


class TestLance(SourceContract):
    """The contract, for a table of which a row was deleted."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        lance = pytest.importorskip("lance")
        table = pa.table({"id": [f"{number:03}" for number in range(300)], "image": rows(10) * 30})
        lance.write_dataset(table, tmp_path / "t.lance", max_rows_per_file=280).delete("id = '003'")
        return open_source([f"{tmp_path}/t.lance"])


def test_all_formats_bring_the_same(tmp_path: Path) -> None:
    """Pictures, keys and metadata, from any row on."""
    lance = pytest.importorskip("lance")
    data = rows(10) * 30
    table = pa.table({"id": [f"{number:03}" for number in range(300)], "n": range(300), "image": data})
    write(tmp_path / "a.parquet", table.to_pydict(), row_group_size=70)
    lance.write_dataset(table, tmp_path / "a.lance", max_rows_per_file=280)
    for name, new in (("a.feather", pa.ipc.new_file), ("a.arrow", pa.ipc.new_stream)):
        with new(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=70)
    for name in ("a.parquet", "a.lance", "a.feather", "a.arrow"):
        source = open_source([f"{tmp_path}/{name}?key=id&columns=n"])
        for wanted in ([*range(300)], [255, 256, 279, 280, 69, 70, 299]):
            listed = [*source]
            found = [*source.loaded([listed[row] for row in wanted], LIMIT)]
            assert [item.data for item in found] == [data[row] for row in wanted]
            assert [(item.key, item.metadata) for item in found] == [(f"{row:03}", {"n": row}) for row in wanted]


@pytest.mark.parametrize("type_", ["binary", "large_binary", "struct"])
@pytest.mark.parametrize("group", [3, 1000])
def test_rows_bring_their_pictures(tmp_path: Path, type_: str, group: int) -> None:
    """As bytes or in the layout of Hugging Face, over the ends of batches and groups; the column need not be named."""
    data = rows(50)
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = (
        pa.array([{"bytes": each, "path": "x.png"} for each in data], struct)
        if type_ == "struct"
        else pa.array(data, getattr(pa, type_)())
    )
    write(tmp_path / "a.parquet", {"label": range(50), "picture": column}, row_group_size=group)
    found = loaded(tmp_path / "a.parquet")
    assert [item.data for item in found] == data
    assert [item.key for item in found][12] == f"{tmp_path}/a.parquet#000000012"


def test_columns_become_metadata(tmp_path: Path) -> None:
    """Those that are asked for; values that are not JSON are texts, null and NaN are left out, and what every row
    has keeps its name."""
    columns = {
        "width": [1, None],
        "share": [0.5, float("nan")],
        "id": [7, 8],
        "image": rows(2),
        "caption": ["a", None],
        "day": [date(2026, 1, 2)] * 2,
        "tags": [["x"], []],
        "thumb": rows(2),
    }
    path = write(tmp_path / "a.parquet", columns)
    for chosen in ("caption,day,tags,share,width", "*"):
        first, second = loaded(f"parquet:{path}?image=image&key=id&columns={chosen}")
        assert first.key == "7"
        assert first.metadata == {
            "caption": "a", "day": "2026-01-02", "tags": ["x"], "share": 0.5, "source_width": 1,
        }  # fmt: skip
        assert (second.key, second.metadata) == ("8", {"day": "2026-01-02", "tags": []})
    assert loaded(f"{path}?image=image")[0].metadata == {}


def test_a_row_may_name_a_file(tmp_path: Path) -> None:
    """By a path, from the table's folder; in a struct where it has no bytes. A URL is read as others are."""
    (tmp_path / "x.png").write_bytes(data := picture(0))
    names = ["x.png", f"{tmp_path}/x.png", f"file://{tmp_path}/x.png", "s3://bucket/x.png", "ftp://x/x.png", ""]
    write(tmp_path / "a.parquet", {"uri": names})
    *files, remote, unread, none = loaded(f"{tmp_path}/a.parquet?image=uri")
    assert [item.path for item in files] == [f"{tmp_path}/x.png"] * 3
    alone = [entry.reference for entry in entries(f"{tmp_path}/a.parquet?image=uri") if isinstance(entry, Item)][:3]
    assert [Fetchers(LIMIT).read(reference) for reference in alone if reference is not None] == [data] * 3
    assert remote.reference is not None
    assert (remote.reference.ref, remote.data) == ("s3://bucket/x.png", None)
    assert isinstance(unread.data, ItemError)
    assert isinstance(none.data, ItemError)
    struct = pa.array(
        [{"bytes": None, "path": "x.png"}, {"bytes": data, "path": "y.png"}, {"bytes": None, "path": None}, None],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    write(tmp_path / "b.parquet", {"image": struct})
    one, two, *broken = loaded(tmp_path / "b.parquet")
    assert (one.path, two.data) == (f"{tmp_path}/x.png", data)
    assert [str(item.data) for item in broken] == ["there is no picture in its row"] * 2


def test_what_a_row_lacks_is_a_dead_letter_of_its_own(tmp_path: Path) -> None:
    """No picture, one that is too large, no key, a key of the row before."""
    columns = {"id": ["a", "b", None, "c", "c", ""], "image": [b"1" * 9, None, b"2", b"3", b"4", b"5"]}
    path = write(tmp_path / "a.parquet", columns)
    spec = f"{path}?key=id"
    assert [type(entry) for entry in entries(spec)] == [Item, Item, Broken, Item, Broken, Broken]
    large, none, fine = loaded(spec, most=8)
    assert isinstance(large.data, TooLargeError)
    assert str(none.data) == "there is no picture in its row"
    assert fine.data == b"3"


def test_a_key_that_repeats_anywhere_is_a_dead_letter(tmp_path: Path) -> None:
    """In the same file or another: the first row keeps it."""
    write(tmp_path / "0.parquet", {"id": [3, 1, 2, 1], "image": [b"x"] * 4}, row_group_size=2)
    write(tmp_path / "1.parquet", {"id": ["4", "3"], "image": [b"x"] * 2})
    found = entries(f"{tmp_path}/*.parquet?key=id")
    assert [entry.key.rpartition("/")[2] for entry in found] == [
        "3", "1", "2", "0.parquet#000000003", "4", "1.parquet#000000001",
    ]  # fmt: skip
    assert [str(entry.error) for entry in found if isinstance(entry, Broken)] == [
        "its key '1' is that of a row before",
        "its key '3' is that of a row before",
    ]


def test_keys_that_have_been_met_are_known() -> None:
    """Whatever comes together, and with whatever sizes the runs have."""
    chance, seen, met = random.Random(0), Seen(), set[str]()
    for _ in range(200):
        keys = [str(chance.randrange(3000)) for _ in range(chance.randrange(40))]
        expected = [key in met or key in keys[:place] for place, key in enumerate(keys)]
        met.update(keys)
        assert seen.take(keys).tolist() == expected


def test_a_later_file_with_other_columns_is_a_broken_entry(tmp_path: Path) -> None:
    """The files around it are read; the first is looked at before the job."""
    for number, name in enumerate(["image", "picture", "image"]):
        write(tmp_path / f"{number}.parquet", {name: rows(2)})
    found = entries(f"{tmp_path}/*.parquet?image=image")
    assert [type(entry) for entry in found] == [Item, Item, Broken, Item, Item]
    assert isinstance(found[2], Broken)
    assert "has no column 'image', it has 'picture'" in str(found[2].error)
    with pytest.raises(SourceError, match=r"0\.parquet': has no column 'none', it has 'image'"):
        open_source([f"{tmp_path}/*.parquet?image=none"])


def test_a_corrupt_page_costs_the_rows_behind_it_in_its_group(tmp_path: Path) -> None:
    """They are dead letters; the group is not read again for each, and the next one is fine."""
    path = write(
        tmp_path / "a.parquet", {"image": [bytes([number]) * 1000 for number in range(64)]}, row_group_size=32,
        compression="none", use_dictionary=False, write_page_checksum=True,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    at = data.index(b"\x05" * 1000)
    data[at : at + 10] = bytes(10)
    path.write_bytes(data)
    found = loaded(path)
    assert all(isinstance(item.data, ItemError) for item in found[:32])
    assert "CRC" in str(found[0].data)
    assert [item.data for item in found[32:]] == [bytes([number]) * 1000 for number in range(32, 64)]


def test_a_table_that_has_changed_is_not_read_by_an_older_listing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": rows(2)})
    source = open_source([str(path)])
    listed = [*source]
    write(path, {"image": rows(2, 5)})
    os.utime(path, ns=(1, 1))
    for item in source.loaded(listed, LIMIT):
        assert "has changed since it was listed: --update takes it" in str(item.data)


def test_rows_are_read_on_where_a_job_goes_on(tmp_path: Path) -> None:
    """Groups before are passed by; what is asked for again is found again."""
    path = write(tmp_path / "a.parquet", {"image": (data := rows(60))}, row_group_size=20)
    source = open_source([str(path)])
    listed = [*source]
    wanted = [45, 46, 58, 3, 3, 59, 20]
    found = source.loaded([listed[row] for row in wanted], LIMIT)
    assert [item.data for item in found] == [data[row] for row in wanted]


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("none.parquet", SourceError, "there is no such table"),
        ("a.parquet?imge=x", ConfigError, "there is no option 'imge', there are image, key, columns"),
        ("parquet:", ConfigError, "name a table"),
        ("b.parquet", SourceError, r"'x', 'y' can be the pictures: say \?image=COLUMN"),
        ("c.parquet", SourceError, "no column holds bytes"),
        ("c.parquet?image=n", SourceError, "the column 'n' is int64"),
        ("b.parquet?image=x&key=y", SourceError, "the column 'y' is binary: keys are texts or whole numbers"),
        ("b.parquet?image=x&columns=y", SourceError, "the column 'y' cannot be metadata"),
        ("parquet:text", SourceError, "Parquet"),
    ],
)
def test_what_is_no_table_of_pictures_is_refused_before_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, error: type[Exception], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.parquet", {"image": rows(1)})
    write(tmp_path / "b.parquet", {"x": rows(1), "y": rows(1)})
    write(tmp_path / "c.parquet", {"n": [1]})
    (tmp_path / "text").write_bytes(b"text")
    with pytest.raises(error, match=said):
        open_source([spec])


@pytest.mark.parametrize(
    ("scheme", "module", "extra"), [("parquet", "pyarrow.parquet", "parquet"), ("lance", "lance", "lance")]
)
def test_a_library_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, scheme: str, module: str, extra: str
) -> None:
    for name in (module, module.partition(".")[0]):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"tables need \w+: pip install 'penstock\[{extra}\]'"):
        open_source([f"{scheme}:x"])


def test_a_table_may_be_named_by_the_url_of_a_file(tmp_path: Path) -> None:
    """With a scheme and options or without, as a tar may."""
    path = write(tmp_path / "a b.parquet", {"image": rows(1)})
    url = path.as_uri()
    for spec in (url, f"{url}?image=image", f"parquet:{url}", f"parquet:{url}?image=image"):
        assert [entry.key for entry in entries(spec)] == [f"{path}#000000000"], spec


def test_several_tables_are_one_source_if_they_are_asked_for_the_same(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.parquet", {"image": rows(1)})
    specs = [f"{tmp_path}/a.parquet?image=image", f"parquet:{tmp_path}/b.parquet?image=image"]
    assert len([*open_source(specs)]) == 2
    with pytest.raises(ConfigError, match="ask for different columns"):
        open_source([specs[0], f"{tmp_path}/b.parquet"])


@pytest.mark.slow
def test_memory_does_not_grow_with_a_group(tmp_path: Path) -> None:
    """A file whose one group has 200 MB of pictures is read page by page."""
    path = tmp_path / "a.parquet"
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_batch_size=16) as writer:
        data = os.urandom(100_000)
        writer.write_table(pa.table({"image": [data] * 2000}, schema), row_group_size=2000)
    before = pa.total_allocated_bytes()
    most = 0
    source = open_source([str(path)])
    for item in source.loaded(source, LIMIT):
        assert len(item.data) == 100_000
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 20 << 20
