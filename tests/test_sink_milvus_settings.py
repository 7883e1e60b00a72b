"""The Milvus sink without a server: settings and addresses that cannot be, and rows that cannot be encoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError, RowRefusedError
from penstock.sinks import MilvusSink, RowBatch
from penstock.sinks.milvus.rows import MAX_METADATA_BYTES, encode_row
from penstock.sinks.milvus.schema import COLUMNS, Layout
from penstock.sinks.milvus.uri import parse_uri

DIMENSION = 4


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"uri": "photos.sqlite"}, "uri"),
        ({"uri": "ftp://host/x"}, "uri"),
        ({"uri": "http://"}, "uri"),
        ({"uri": "http://host:99999"}, "uri"),
        ({"uri": "http://host/a/b"}, "uri"),
        ({"uri": "/no/such/folder/photos.db"}, "folder"),
        ({"collection": "my-images"}, "collection"),
        ({"collection": "1a"}, "collection"),
        ({"collection": ""}, "collection"),
        ({"collection": "a" * 256}, "collection"),
        ({"dimension": 1}, "dimension"),
        ({"dimension": 40_000}, "dimension"),
        ({"metric": "angle"}, "metric"),
        ({"timeout": 0}, "timeout"),
        ({"retry_for": -1}, "retry_for"),
        ({"rows_per_call": 0}, "rows_per_call"),
        ({"threads": 0}, "threads"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_named(setting: dict[str, Any], word: str) -> None:
    """At once, without a server, with the name of the field."""
    arguments: dict[str, Any] = {"uri": "http://127.0.0.1:1", **setting}
    with pytest.raises(ConfigError, match=word):
        MilvusSink(**arguments)


def test_a_file_where_the_directory_should_be_is_refused(tmp_path: Path) -> None:
    """A database of milvus-lite 2 is a file; it is not written over."""
    old = tmp_path / "old.db"
    old.write_bytes(b"SQLite format 3")
    with pytest.raises(ConfigError, match="not a Milvus Lite 3 directory"):
        MilvusSink(str(old))
    assert old.read_bytes() == b"SQLite format 3"


def test_uris_point_where_they_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Paths are kept absolute; addresses get their default port; explicit tokens go first, the environment's last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    assert parse_uri("photos.db").address == parse_uri("photos.db/").address == str(tmp_path / "photos.db")
    assert parse_uri("http://host").address == "http://host:19530"
    assert parse_uri("https://host").address == "https://host:443"
    assert parse_uri("http://[::1]:7/db").shown == "http://[::1]:7/db"
    assert parse_uri("http://u:p%40ss@host").token == "u:p@ss"
    monkeypatch.setenv("MILVUS_TOKEN", "from-env")
    assert [
        parse_uri("http://host").token,
        parse_uri("http://k@host").token,
        parse_uri("http://k@host", "own").token,
    ] == [
        "from-env",
        "k",
        "own",
    ]
    assert parse_uri("photos.db").token == ""


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"vector": [1]}, "'vector'"),
        ({"$meta": {}}, "meta"),
        ({"_seq": 1}, "_seq"),
        ({"": 1}, "named ''"),
        ({5: 1}, "named 5"),
        ({"x": object()}, "JSON"),
        ({"x": float("nan")}, "JSON"),
        ({"x": "\ud800"}, "JSON"),
        ({"x": "y" * MAX_METADATA_BYTES}, "65536"),
    ],
)
def test_metadata_that_milvus_cannot_keep_refuses_its_row(metadata: dict[Any, Any], words: str) -> None:
    """With the name of what is wrong; nothing is dropped or changed silently."""
    with pytest.raises(RowRefusedError, match=words):
        encode_row(RowBatch(["k"], np.ones((1, 4), np.float32), [metadata]), 0, Layout(4))


def test_numpy_values_in_metadata_are_plain_numbers() -> None:
    """What pipelines compute is numpy; what Milvus keeps is JSON."""
    columns = {"width": np.int32(5), "score": np.float32(0.5), "box": np.arange(3), "where": Path("/a")}
    rows = RowBatch(["k"], np.ones((1, DIMENSION), np.float32), [columns])
    row, _ = encode_row(rows, 0, Layout(DIMENSION, COLUMNS))
    assert (row["width"], row["score"], row["box"], row["where"]) == (5, 0.5, [0, 1, 2], "/a")
    assert row["path"] is None


TEXTS = st.text('ab"\\é\ud800\x00', max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(TEXTS, st.none() | st.floats() | TEXTS | st.lists(TEXTS, max_size=2), max_size=4))
def test_any_metadata_is_encoded_or_refused(metadata: dict[str, Any]) -> None:
    """No input makes another error than RowRefusedError."""
    rows = RowBatch(["k"], np.ones((1, DIMENSION), np.float32), [metadata])
    try:
        row, size = encode_row(rows, 0, Layout(DIMENSION))
    except RowRefusedError:
        return
    assert size > 4 * DIMENSION
    assert {name for name, value in metadata.items() if value is not None} <= set(row)
