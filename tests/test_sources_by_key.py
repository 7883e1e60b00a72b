"""Pictures found again by the keys of their rows, wherever they lie, and shown on the page of a search."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.engine.jobs.common.shown_frames import show_frames
from penstock.engine.observe.contact_sheet import contact_sheet
from penstock.engine.sources import Item, SourceOptions, UrlOptions, open_source
from penstock.engine.sources.by_key import read_by_keys
from penstock.errors import ReadError
from penstock.sinks import Hit
from penstock.tests.html_pages import Page
from penstock.tests.packed import picture, write_tar
from penstock.tests.small_s3 import SmallS3

LONG = 600.0
"""Seconds that no test takes."""


def keys_of(spec: str) -> list[str]:
    """As a job knows the pictures."""
    return [entry.key for entry in open_source([spec], SourceOptions()) if isinstance(entry, Item)]


def read(keys: Sequence[str], seconds: float = LONG) -> list[bytes | Exception]:
    found = read_by_keys(keys, UrlOptions(), bytes, seconds=seconds)
    assert found.keys() == {*keys}
    return [found[key] for key in keys]


def write_table(path: Path, data: Sequence[bytes | None]) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"image": pa.array(data, pa.binary())})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


def test_members_of_tars_are_found_again(tmp_path: Path) -> None:
    """Whatever tar and member are called, also twice the same; two tars at once."""
    names = ["a/1.png", "wow!.png", "a/1.png", os.fsdecode(b"\xff.png"), "notes.txt"]
    members = [(name, picture(number)) for number, name in enumerate(names)]
    first = write_tar(tmp_path / "odd! [1].tar", members, tarfile.GNU_FORMAT)
    second = write_tar(tmp_path / "b.tar", members[:1])
    keys = [*keys_of(f"wds:{tmp_path}/odd*.tar"), *keys_of(str(second))]
    assert len(keys) == 5
    assert keys[0].startswith(str(first))
    assert read(keys) == [*(data for _, data in members[:4]), members[0][1]]


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "odd#000000001.parquet"])
def test_rows_of_tables_are_found_again(tmp_path: Path, name: str) -> None:
    """Of any group of rows."""
    data = [picture(number) for number in range(5)]
    keys = keys_of(str(write_table(tmp_path / name, data)))
    assert read(keys[::-1]) == data[::-1]


def test_what_lies_in_stores_is_found_again(small_s3: SmallS3, tmp_path: Path) -> None:
    """Objects, a tar and a table there."""
    data = [picture(number) for number in range(3)]
    small_s3.put("a.png", data[0])
    small_s3.put("b.tar", write_tar(tmp_path / "b.tar", [("x.png", data[1])]).read_bytes())
    small_s3.put("c.parquet", write_table(tmp_path / "c.parquet", [data[2]]).read_bytes())
    assert read(["s3://bucket/a.png", "s3://bucket/b.tar!x.png", "s3://bucket/c.parquet#000000000"]) == data


def test_what_is_not_there_costs_the_others_nothing(tmp_path: Path) -> None:
    """Each says why."""
    tar = write_tar(tmp_path / "a.tar", [("1.png", picture(1)), ("2.png", picture(2))])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(tar.read_bytes()[:700])
    table = write_table(tmp_path / "t.parquet", [picture(3), None])
    keys = ["album-17", f"{tar}!gone.png", f"{cut}!1.png", f"{table}#000000001", f"{table}#000000009", f"{tar}!2.png"]
    *problems, good = read(keys)
    assert good == picture(2)
    words = ["no place", "not there any more", "cut short", "no picture", "no row 9"]
    for problem, word in zip(problems, words, strict=True):
        assert isinstance(problem, ReadError)
        assert word in str(problem)


def test_when_the_time_is_over_nothing_is_begun(small_s3: SmallS3, tmp_path: Path) -> None:
    """Neither a request nor a pass over a tar."""
    tar = write_tar(tmp_path / "a.tar", [("1.png", picture(1))])
    for problem in read(["s3://bucket/a.png", f"{tar}!1.png"], seconds=0.0):
        assert isinstance(problem, ReadError)
        assert "too long" in str(problem)
    assert not small_s3.count()


@pytest.mark.parametrize("has_path", [True, False])
def test_a_sheet_shows_what_lies_in_tars_and_tables(tmp_path: Path, has_path: bool) -> None:
    """A note stands where a picture cannot be had. Rows have what they are known by for a path, or none."""
    tar = write_tar(tmp_path / "a.tar", [("1.png", picture(1)), ("bad.png", b"no picture")])
    table = write_table(tmp_path / "t.parquet", [picture(2)])
    (tmp_path / "q.png").write_bytes(picture(0))
    hits = [
        Hit(key, 0.5, key if has_path else None, 32, 32, {})
        for key in (f"{tar}!1.png", f"{table}#000000000", f"{tar}!bad.png", f"{tar}!gone.png")
    ]
    page = Page(contact_sheet(str(tmp_path / "q.png"), hits, "photos.db", show_frames=show_frames))
    pictures = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert pictures == ["The query: q.png", "a.tar!1.png", "t.parquet#000000000"]
    assert "Cannot be shown: UnidentifiedImageError" in page.words
    assert "it is not there any more" in page.words
