"""Parquet for bulk import: parts that survive any death, one row a key; and the import itself by a full server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.servers import MilvusLiteServer, MilvusServer
from penstock.errors import CollectionMismatchError, ConfigError, SinkError
from penstock.sinks import (
    Found,
    ImportProgress,
    MilvusSink,
    ParquetBulkSink,
    RowBatch,
    bulk_import,
    is_finished,
    read_manifest,
)
from penstock.sinks.parquet.parts import write_part
from penstock.tests.waiting import DEADLINE

pq = pytest.importorskip("pyarrow.parquet")

DIMENSION = 4


def make_rows(keys: range, version: int = 0, **columns: Any) -> RowBatch:
    vectors = np.stack([np.random.default_rng(key).standard_normal(DIMENSION) for key in keys]).astype(np.float32)
    extra = [{"path": f"/{key}.jpg", "width": 3, "height": 4, "year": version, "tag": "é", **columns} for key in keys]
    return RowBatch([f"k{key}" for key in keys], vectors, extra)


def sink_on(folder: Path, **settings_: Any) -> ParquetBulkSink:
    complete: dict[str, Any] = {"fields": {"year": "int64"}, **settings_}
    return ParquetBulkSink(folder, complete.pop("dimension", DIMENSION), **complete)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Every row of every part, as a server would import it."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part-*"))


def test_the_layout_is_the_one_that_bulk_import_takes(tmp_path: Path) -> None:
    """A column for each field, a list of floats for the vector, the other metadata as JSON text in ``$meta``."""
    with sink_on(tmp_path, fields={"year": "int64", "info": "json"}, note="recipe") as sink:
        rows = make_rows(range(2), info={"a": 1})
        rows.columns[1] = {}
        sink.write(rows)
    schema = pq.read_schema(tmp_path / parts(tmp_path)[0])
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "key": "string",
        "vector": "list<element: float>",
        "path": "string",
        "width": "int32",
        "height": "int32",
        "year": "int64",
        "info": "string",
        "$meta": "string",
    }
    full, empty = rows_in(tmp_path)
    assert (full["key"], full["path"], full["year"], json.loads(full["info"])) == ("k0", "/0.jpg", 0, {"a": 1})
    assert json.loads(full["$meta"]) == {"tag": "é"}
    np.testing.assert_array_equal(np.float32(full["vector"]), rows.vectors[0])
    assert (empty["path"], empty["year"], empty["info"], empty["$meta"]) == (None, None, None, "{}")


def test_the_manifest_says_what_is_in_the_folder(tmp_path: Path) -> None:
    """Rows, sizes and digests of the parts, what the vectors are made by, and which values are missing."""
    with sink_on(tmp_path, note="recipe", collection="photos", part_bytes=1) as sink:
        sink.write(make_rows(range(5)))
        sink.write(RowBatch(["a"], np.ones((1, DIMENSION), np.float32), [{}]))
    manifest = read_manifest(tmp_path)
    assert (manifest.collection, manifest.dimension, manifest.note) == ("photos", DIMENSION, "recipe")
    assert (manifest.fields, manifest.rows, manifest.nulls) == ({"year": "int64"}, 6, {"year": 1})
    for part in manifest.parts:
        content = (tmp_path / part["name"]).read_bytes()
        assert (part["bytes"], part["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert [part["rows"] for part in manifest.parts] == [5, 1]


def test_a_look_leaves_out_what_is_not_what_the_manifest_says(tmp_path: Path) -> None:
    """A part that has gone or was cut; the folder is no finished one then."""
    with sink_on(tmp_path, note="recipe", part_bytes=1) as sink:
        for first in (0, 10, 20):
            sink.write(make_rows(range(first, first + 10)))
    assert sink.look() == Found(30, "recipe")
    one, other, _ = parts(tmp_path)
    (tmp_path / one).unlink()
    os.truncate(tmp_path / other, 100)
    assert sink.look() == Found(10, "recipe")
    assert not is_finished(tmp_path)


def test_a_folder_that_cannot_be_made_needs_another_place(tmp_path: Path) -> None:
    """There are no parts that stay, and no disk is full."""
    (tmp_path / "parts").write_text("a file")
    with pytest.raises(SinkError, match=r"parts cannot be written: File exists; take another folder \(--to\)"):
        sink_on(tmp_path / "parts").open()


def test_a_write_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    """A job that is killed then has lost nothing: the next one goes on with what is there."""
    folder = tmp_path / "live"
    with sink_on(folder) as sink:
        sink.write(make_rows(range(10)))
        with pytest.raises(ConfigError, match="no finished bulk folder"):
            read_manifest(folder)
        shutil.copytree(folder, tmp_path / "killed")  # as a SIGKILL leaves it
    (tmp_path / "killed" / "part-000002-000002.parquet.unfinished").write_bytes(b"torn")
    with sink_on(tmp_path / "killed") as sink:
        assert sink.count() == 10
        sink.write(make_rows(range(5, 15)))
    assert read_manifest(tmp_path / "killed").rows == 15
    assert not list((tmp_path / "killed").glob("*.unfinished"))


def test_parts_and_manifest_are_on_the_medium_with_their_names(tmp_path: Path, synced: list[str]) -> None:
    """A power failure takes no row whose write has returned, and leaves no half manifest."""
    with sink_on(tmp_path) as sink:
        sink.write(make_rows(range(2)))
        (part,) = parts(tmp_path)
        assert synced == [f"{tmp_path / part}.unfinished", str(tmp_path)]
    assert synced[2:] == [str(tmp_path / "manifest.json.unfinished"), str(tmp_path)]


def test_parts_that_were_merged_when_the_job_was_killed_are_leftovers(tmp_path: Path) -> None:
    """Between writing the merged part and deleting the single ones every row is there twice, for nobody to see."""
    folder = tmp_path / "live"
    with sink_on(folder) as sink:
        for first in (0, 10, 20):
            sink.write(make_rows(range(first, first + 10)))
        shutil.copytree(folder, tmp_path / "killed")
    assert parts(folder) == ["part-000001-000003.parquet"]
    shutil.copy(folder / "part-000001-000003.parquet", tmp_path / "killed")
    with sink_on(tmp_path / "killed") as sink:
        assert sink.count() == 30
    assert parts(tmp_path / "killed") == ["part-000001-000003.parquet"]


def test_a_rerun_writes_over_the_rows_of_the_run_before(tmp_path: Path) -> None:
    """In other batches, in another order: each key is there once, with its newest value."""
    for version, sizes in ((1, (10, 10, 10)), (2, (7, 13, 5))):
        with sink_on(tmp_path) as sink:
            first = 0
            for size in sizes:
                sink.write(make_rows(range(first, first + size), version))
                first += size
    found = {row["key"]: row["year"] for row in rows_in(tmp_path)}
    assert len(rows_in(tmp_path)) == len(found) == 30
    assert found == {f"k{key}": 2 if key < 25 else 1 for key in range(30)}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6), max_size=6), st.sampled_from([1, 2**30])
)
def test_any_sequence_of_writes_and_sessions_leaves_the_newest_rows(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, bool]]], part_bytes: int
) -> None:
    """Against a dictionary, with a new session wherever a batch says so, and parts of any size."""
    folder = tmp_path_factory.mktemp("parts")
    newest: dict[str, int] = {}
    sink = sink_on(folder, part_bytes=part_bytes)
    sink.open()
    for version, batch in enumerate(batches):
        if any(again for _, again in batch):
            sink.close()
            sink.open()
        keys = [f"k{key}" for key, _ in batch]
        columns = [{"year": version} for _ in batch]
        sink.write(RowBatch(keys, np.ones((len(batch), DIMENSION), np.float32), columns))
        newest.update(dict.fromkeys(keys, version))
    assert sink.count() == len(newest)
    sink.close()
    assert {row["key"]: row["year"] for row in rows_in(folder)} == newest
    assert len(rows_in(folder)) == read_manifest(folder).rows == len(newest)


def test_parts_are_of_about_the_size_that_was_asked_for(tmp_path: Path) -> None:
    """Many small writes become few files, not one of any size."""
    with sink_on(tmp_path / "one") as sink:
        sink.write(make_rows(range(10)))
    single = (tmp_path / "one" / "part-000001-000001.parquet").stat().st_size
    with sink_on(tmp_path / "many", part_bytes=10 * single + 1000) as sink:
        for first in range(0, 400, 10):
            sink.write(make_rows(range(first, first + 10)))
    assert len(parts(tmp_path / "many")) == 4
    assert len({row["key"] for row in rows_in(tmp_path / "many")}) == 400


def test_overwriting_replaces_the_folder_with_the_first_rows(tmp_path: Path) -> None:
    """A session without rows takes nothing away; one with rows may have other columns."""
    with sink_on(tmp_path) as sink:
        sink.write(make_rows(range(5)))
    with sink_on(tmp_path, mode="overwrite"):
        pass
    assert read_manifest(tmp_path).rows == 5
    with sink_on(tmp_path, mode="overwrite", fields={}, note="new") as sink:
        sink.write(make_rows(range(5, 7)))
    assert (read_manifest(tmp_path).rows, read_manifest(tmp_path).note) == (2, "new")


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"fields": {}}, "columns.*year"),
        ({"fields": {"year": "int32"}}, "year int64.*year int32"),
        ({"dimension": 5}, "4 dimensions.*5"),
    ],
)
def test_another_shape_is_a_mismatch(tmp_path: Path, settings_: dict[str, Any], words: str) -> None:
    """The server would refuse a folder of two kinds of files."""
    with sink_on(tmp_path) as sink:
        sink.write(make_rows(range(2)))
    other = sink_on(tmp_path, **settings_)
    with pytest.raises(CollectionMismatchError, match=rf"{words}.*--overwrite"):
        other.open()
    with sink_on(tmp_path) as sink:  # the refused one holds no lock
        assert sink.count() == 2


def test_a_folder_is_open_once(tmp_path: Path) -> None:
    """Two jobs would merge each other's parts."""
    with sink_on(tmp_path), pytest.raises(SinkError, match="open in another process"):
        sink_on(tmp_path).open()


FORKS = """
import os, sys, time
from penstock.sinks import ParquetBulkSink

sink = ParquetBulkSink(sys.argv[1], 4)
sink.open()
if os.fork() == 0:
    os.write(1, b"%d" % os.getpid())
os.close(1)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.kills
def test_a_forked_child_of_a_killed_job_does_not_keep_the_folder(tmp_path: Path) -> None:
    """A data loader's or a pool's child has a copy of everything, but not of the lock."""
    with subprocess.Popen([sys.executable, "-c", FORKS, str(tmp_path)], stdout=subprocess.PIPE) as job:
        assert job.stdout is not None
        child = int(job.stdout.read())
        try:
            job.kill()
            job.wait()
            with sink_on(tmp_path) as sink:
                assert sink.count() == 0
        finally:
            job.kill()
            os.kill(child, signal.SIGKILL)


def test_a_write_that_was_abandoned_keeps_the_folder_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its part would replace one of whoever opens the folder next. Closing does not wait for it."""
    begun, go = threading.Event(), threading.Event()

    def late(*args: Any) -> int:
        begun.set()
        assert go.wait(DEADLINE)
        return write_part(*args)

    monkeypatch.setattr("penstock.sinks.milvus.bulk_files.write_part", late)
    first, second = sink_on(tmp_path), sink_on(tmp_path)
    first.open()
    with ThreadPoolExecutor(1) as threads:
        try:
            writing = threads.submit(first.write, make_rows(range(1)))
            assert begun.wait(DEADLINE)
            first.close()
            with pytest.raises(SinkError, match="is open in another process"):
                second.open()
            with pytest.raises(SinkError, match="is closed"):
                first.write(make_rows(range(1)))
        finally:
            go.set()
        writing.result(DEADLINE)
    with second:
        second.write(make_rows(range(1, 2)))
    assert [row["path"] for row in rows_in(tmp_path)] == ["/0.jpg", "/1.jpg"]


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each write is a part of its own."""
    with sink_on(tmp_path) as sink, ThreadPoolExecutor(4) as pool:
        list(pool.map(sink.write, [make_rows(range(first, first + 5)) for first in range(0, 200, 5)]))
        assert sink.count() == 200
    assert len(rows_in(tmp_path)) == 200


# --- the import


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of 500 rows in several parts."""
    made = tmp_path_factory.mktemp("bulk")
    with sink_on(made, note="recipe", part_bytes=1) as sink:
        for first in range(0, 500, 250):
            sink.write(make_rows(range(first, first + 250), 1999))
    return made


def test_milvus_lite_is_refused(folder: Path, milvus_lite_server: MilvusLiteServer) -> None:
    """It has no bulk import; the collection that was made for trying is empty."""
    with pytest.raises(ConfigError, match="Milvus Lite has no bulk import"):
        bulk_import(folder, milvus_lite_server.uri, collection="lite")


def test_a_folder_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    """Its job is still running, or was killed; or it is no such folder at all."""
    wrongs = {tmp_path: r"it has no manifest\.json;", tmp_path / "nothing": "there is no such folder;"}
    for wrong, why in wrongs.items():
        with pytest.raises(ConfigError, match=rf"no finished bulk folder: {why}"):
            bulk_import(wrong, "http://127.0.0.1:1")


@pytest.mark.slow
def test_a_full_server_imports_every_row(folder: Path, milvus: MilvusServer) -> None:
    """Visible, indexed, searchable, with typed fields, metadata and the note; a second import is refused."""
    name = f"b{uuid.uuid4().hex}"
    seen: list[ImportProgress] = []
    done = bulk_import(folder, milvus.uri, collection=name, on_progress=seen.append, timeout=DEADLINE)
    assert (done.rows, done.parts_done, done.rows_visible) == (500, 2, 500)
    assert done.index is not None
    assert done.index.indexed >= 500
    assert seen[-1].index == done.index
    with MilvusSink(milvus.uri, name) as sink:
        assert (sink.note, sink.count()) == ("recipe", 500)
        (hit,) = sink.search(make_rows(range(7, 8)).vectors[0], 1, filter="year == 1999 and width == 3")
        assert (hit.key, hit.path, hit.metadata) == ("k7", "/7.jpg", {"year": 1999, "tag": "é"})
    with pytest.raises(CollectionMismatchError, match=r"500 rows already.*--overwrite"):
        bulk_import(folder, milvus.uri, collection=name)
    with MilvusSink(milvus.uri, name, DIMENSION, fields={"year": "int64"}) as sink:
        assert sink.write(make_rows(range(499, 502))).written == 3  # an upsert finds imported keys
        assert sink.count() == 502
        sink.drop()


@pytest.mark.slow
def test_overwriting_imports_into_an_empty_partition(folder: Path, milvus: MilvusServer) -> None:
    """What an import that failed has left goes; other partitions stay."""
    name = f"b{uuid.uuid4().hex}"
    shape: dict[str, Any] = {"fields": {"year": "int64"}}
    with MilvusSink(milvus.uri, name, DIMENSION, **shape) as whole:
        whole.write(make_rows(range(3)))
        with MilvusSink(milvus.uri, name, DIMENSION, partition="old", **shape) as part:
            part.write(make_rows(range(10, 13)))
        done = bulk_import(folder, milvus.uri, collection=name, partition="old", mode="overwrite", timeout=DEADLINE)
        assert (done.rows_visible, whole.count()) == (500, 503)
        whole.drop()


@pytest.mark.slow
def test_a_file_that_the_server_cannot_read_is_explained(folder: Path, milvus: MilvusServer) -> None:
    """It reads the files itself: that is the first thing that goes wrong."""
    name = f"b{uuid.uuid4().hex}"
    with pytest.raises(SinkError, match=r"could not load /elsewhere/part-.*--server-path"):
        bulk_import(folder, milvus.uri, collection=name, server_path="/elsewhere/", timeout=DEADLINE)


@pytest.mark.slow
def test_missing_values_are_refused_where_there_is_no_null(tmp_path: Path, milvus: MilvusServer) -> None:
    """This server would read them as 0, without a word."""
    with sink_on(tmp_path) as sink:
        sink.write(RowBatch(["a"], np.ones((1, DIMENSION), np.float32), [{}]))
    with pytest.raises(ConfigError, match=r"knows no null.*year \(1 rows\)"):
        bulk_import(tmp_path, milvus.uri, collection=f"b{uuid.uuid4().hex}")


def test_waiting_ends_at_the_deadline(
    folder: Path, milvus_lite_server: MilvusLiteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never shows the rows does not hold the caller for ever."""
    monkeypatch.setattr(MilvusSink, "server_version", "v2.6.0")
    monkeypatch.setattr(MilvusSink, "start_import", lambda *_: 1)

    class Loaded:
        state_name = "Completed"

    answers: dict[str, Callable[..., Any]] = {"import_state": lambda *_: Loaded(), "refresh": lambda _: None}
    for name, answer in answers.items():
        monkeypatch.setattr(MilvusSink, name, answer)
    with pytest.raises(SinkError, match="too long: 0 of 500 rows are visible"):
        bulk_import(folder, milvus_lite_server.uri, collection=f"b{uuid.uuid4().hex}", timeout=0.2)
