"""Columns for pictures from a file: found by path or key, typed, and what does not meet is counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.jobs.common.metadata import Metadata
from penstock.engine.sources import Filtered, Item
from penstock.errors import ConfigError, SourceError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [{"path": "a.jpg", "year": 2001, "album": "summer"}, {"path": "sub/b.jpg", "year": 2002, "album": None}]


def written(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"meta{kind}"
    if kind == ".csv":
        names = list(rows[0])
        lines = [",".join(names), *(",".join("" if row[n] is None else str(row[n]) for n in names) for row in rows)]
        path.write_text("\n".join(lines))
    elif kind == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def looked_up(metadata: Metadata, *keys: str) -> list[dict[str, Any]]:
    return [dict(item.metadata) for item in metadata(Item(key, key) for key in keys)]


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_a_picture_gets_the_columns_of_its_row(tmp_path: Path, kind: str) -> None:
    """Relative paths start at the file's folder; what meets nothing is counted on both sides."""
    metadata = Metadata(written(tmp_path, kind, ROWS), {"year": "int64"})
    found = looked_up(metadata, str(tmp_path / "a.jpg"), str(tmp_path / "unknown.jpg"))
    assert found == [{"year": 2001, "album": "summer"}, {}]
    assert metadata.report(is_full_run=True) == {"rows": 2, "unmatched_rows": 1, "pictures_without": 1}
    metadata.close()


def test_rows_are_counted_as_they_met_pictures_and_only_where_all_pictures_passed(tmp_path: Path) -> None:
    """A picture that is listed twice meets one row; a run over what remained has nothing to say of the others."""
    metadata = Metadata(written(tmp_path, ".jsonl", ROWS), {})
    looked_up(metadata, str(tmp_path / "a.jpg"), str(tmp_path / "a.jpg"))
    assert metadata.report(is_full_run=True)["unmatched_rows"] == 1
    assert "unmatched_rows" not in metadata.report(is_full_run=False)
    metadata.close()


def test_a_row_may_be_named_by_its_key(tmp_path: Path) -> None:
    """As the source calls its items, also where they have no path."""
    metadata = Metadata(written(tmp_path, ".jsonl", [{"key": "s3://b/x.jpg", "n": [1]}]), {})
    assert looked_up(metadata, "s3://b/x.jpg") == [{"n": [1]}]
    metadata.close()


def test_text_becomes_a_value_only_where_its_column_has_a_type(tmp_path: Path) -> None:
    """Without a type 007 stays a text; a text that is none of its type is left for its row's refusal."""
    rows = [{"path": "a", "year": "x1", "code": "007", "ok": "true", "f": "0.5", "j": "{}"}]
    path = written(tmp_path, ".csv", rows)
    metadata = Metadata(path, {"year": "int64", "ok": "bool", "f": "float", "j": "json"})
    assert looked_up(metadata, str(tmp_path / "a")) == [{"year": "x1", "code": "007", "ok": True, "f": 0.5, "j": {}}]
    metadata.close()


def test_what_an_item_brings_itself_goes_first_and_other_things_pass(tmp_path: Path) -> None:
    """The file adds to a source's own metadata."""
    metadata = Metadata(written(tmp_path, ".jsonl", [{"key": "k", "a": 1, "b": 1}]), {})
    passed = list(metadata([Filtered("x", "text"), Item("k", metadata={"b": 2})]))
    assert passed[0] == Filtered("x", "text")
    assert passed[1].metadata == {"a": 1, "b": 2}
    metadata.close()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "year\n1\n", "row 1: it has neither a path nor a key"),
        ("m.csv", "path,year\na,1\nb\n", "row 2: .*fewer cells"),
        ("m.jsonl", '{"path": "a"}\n[1]\n', "row 2: it is not a JSON object"),
        ("m.jsonl", "{", "row 1: "),
        ("m.parquet", "no parquet", "row 1: "),
        ("m.csv", b"path\n\xff\n", "row 1: "),
    ],
)
def test_a_file_that_cannot_be_used_says_which_row(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    """Before the job starts."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SourceError, match=rf"metadata: .*{words}"):
        Metadata(path, {})


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    """Like one that is not there."""
    with pytest.raises(ConfigError, match=r"must end in \.csv, \.jsonl, \.parquet"):
        Metadata(tmp_path / "m.xlsx", {})
    with pytest.raises(ConfigError, match="no file"):
        Metadata(tmp_path / "m.csv", {})


def test_a_reader_that_is_not_installed_is_about_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install, by the name of the setting."""
    path = written(tmp_path, ".parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"^metadata: Parquet files need pyarrow: pip install"):
        Metadata(path, {})
