"""A Parquet data set: what is in its files, and that readers see all of it or nothing, whatever ends publishers."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from penstock.errors import CollectionMismatchError, ConfigError, PublishConflictError, SinkError
from penstock.sinks import RowBatch, Sink, SinkOptions, make_sink
from penstock.sinks.parquet.folder import FolderPlace
from penstock.sinks.parquet.leftovers import leftovers, sweep
from penstock.sinks.parquet.manifest import damaged_parts
from penstock.sinks.parquet.sink import ParquetSink
from penstock.testing.sinks import DIMENSION, StoreContract, make_rows
from penstock.tests import publishing
from penstock.tests.publishing import (
    BATCH,
    JOB,
    OTHER,
    ROWS,
    PublishingSink,
    batch,
    digests,
    publish_at_once,
    run,
    searched,
    seen,
    sink_on,
    watched,
)
from penstock.tests.table_sinks import assert_finds_the_nearest

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


class TestParquet(StoreContract):
    """The contract, while nothing is published: a later session of the job finds what an earlier one wrote."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "rows"

    def make(self, place: Any, note: str = "") -> Sink:
        return make_sink(f"parquet:{place}", SinkOptions(dimension=DIMENSION, note=note, job=JOB))


class TestPublished(StoreContract):
    """The contract, where each session publishes what it has written."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "rows"

    def make(self, place: Any, note: str = "") -> Sink:
        return PublishingSink(FolderPlace(place), DIMENSION, job=JOB, note=note)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "rows"


@pytest.fixture
def place(folder: Path) -> FolderPlace:
    return FolderPlace(folder)


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "_SUCCESS.json").read_text())
    return found


# -- what is in it ----------------------------------------------------------------------------------------------------


def test_a_data_set_is_parts_and_a_manifest(place: FolderPlace, folder: Path) -> None:
    """Any tool reads it; the manifest vouches for every byte."""
    run(place)
    said = manifest(folder)
    assert (said["format"], said["job"], said["rows"], said["recipe"]) == ("penstock.success/1", JOB, ROWS, "recipe")
    assert sorted(path.name for path in folder.iterdir()) == [
        "_SUCCESS",
        "_SUCCESS.json",
        *[p["name"] for p in said["parts"]],
    ]
    for part in said["parts"]:
        data = (folder / part["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])
        file = pq.ParquetFile(folder / part["name"])
        assert file.metadata.num_rows == part["rows"]
        assert file.schema_arrow.metadata[b"penstock.job"] == JOB.encode()
        assert file.schema_arrow.metadata[b"penstock.recipe"] == b"recipe"
        told = [file.metadata.metadata[b"penstock." + name].decode() for name in (b"first", b"last")]
        assert told == [str(part["first"]), str(part["last"])]
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert file.schema_arrow.field("vector").type.list_size == DIMENSION
    assert len(pq.read_table(folder)) == ROWS


def test_rows_are_in_the_order_of_the_listing_and_once(place: FolderPlace, folder: Path) -> None:
    """However they came, and whatever was written twice; a part has so many bytes at most."""
    with sink_on(place) as sink:
        for number in (2, 0, 1, 2, 0):
            sink.write(batch(number))
        sink.finish()
    parts = manifest(folder)["parts"]
    assert len(parts) > 2
    ordinals = [pq.read_table(folder / part["name"]).column("ordinal").to_pylist() for part in parts]
    assert [ordinal for each in ordinals for ordinal in each] == list(range(ROWS))
    assert [(each[0], each[-1]) for each in ordinals] == [(part["first"], part["last"]) for part in parts]
    assert all(part["bytes"] < publishing.PART + 8192 for part in parts)


def test_columns_are_typed_and_the_rest_is_json(place: FolderPlace, folder: Path) -> None:
    """Declared fields are columns; a value of JSON comes back as it was."""
    fields = {"year": "int64", "info": "json"}
    with sink_on(place, fields=fields) as sink:
        rows = make_rows(2, year=1999, info={"a": [1]})
        rows.columns[1] = {}
        sink.write(rows)
        sink.finish()
    table = pq.read_table(folder)
    assert table.column("year").to_pylist() == [1999, None]
    assert json.loads(table.column("metadata")[0].as_py()) == {"label": "é0"}
    assert manifest(folder)["fields"] == fields
    with make_sink(f"parquet:{folder}", SinkOptions()) as reading:
        reader = reading.reader()
        assert reader is not None
        assert reader.get(rows.keys)[rows.keys[0]]["info"] == {"a": [1]}


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_the_nearest_are_those_that_a_sort_finds(place: FolderPlace, folder: Path, metric: str) -> None:
    """By each metric, over several parts and row groups."""
    run(place)
    assert_finds_the_nearest(f"parquet:{folder}", make_rows(ROWS), metric)


def test_a_part_that_was_changed_or_cut_is_noticed(place: FolderPlace, folder: Path) -> None:
    """By whoever reads it: a cut one at once, another byte in a page by the page's sum."""
    run(place)
    path = folder / manifest(folder)["parts"][1]["name"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(SinkError, match="parts are missing or cut"):
        seen(folder)
    start = pq.ParquetFile(path_of(folder, whole)).metadata.row_group(0).column(1).data_page_offset
    for offset in range(start + 60, start + 1500, 97):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(SinkError, match="cannot be read"):
            seen(folder)


def test_the_manifest_vouches_for_every_byte(place: FolderPlace, folder: Path) -> None:
    """A thousand parts with one other byte each are told from whole ones; so are cut ones."""
    run(place)
    assert damaged_parts(place) == []
    name = manifest(folder)["parts"][1]["name"]
    whole = (folder / name).read_bytes()
    random = np.random.default_rng(0)
    for offset in random.integers(0, len(whole), 1000).tolist():
        (folder / name).write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        assert damaged_parts(place) == [name]
    (folder / name).unlink()
    assert damaged_parts(place) == [name]


def path_of(folder: Path, data: bytes) -> Path:
    path = folder.parent / "whole.parquet"
    path.write_bytes(data)
    return path


# -- publishing -------------------------------------------------------------------------------------------------------


def test_nothing_is_seen_before_it_is_published(place: FolderPlace, folder: Path) -> None:
    """Neither by penstock nor by others that read every Parquet file of the folder."""
    with sink_on(place) as sink:
        sink.write(batch(0))
        assert seen(folder) is None
        assert list(folder.glob("*.parquet")) == []
        sink.finish()
        assert seen(folder) == BATCH
        sink.finish()
    assert seen(folder) == BATCH


def test_a_job_without_books_leaves_nothing_unless_it_publishes(place: FolderPlace, folder: Path) -> None:
    """Nobody could go on with it."""
    with sink_on(place, "") as sink:
        sink.write(batch(0))
    assert list(folder.rglob("*")) == []


def test_a_job_with_books_keeps_its_rows_until_it_goes_on(place: FolderPlace, folder: Path) -> None:
    """In the staging folder; `needs_finish` says that something is there to publish."""
    with sink_on(place) as sink:
        assert not sink.needs_finish
        sink.write(batch(0))
    assert sink_on(place).needs_finish
    run(place, batches=[1])
    assert seen(folder) == 2 * BATCH
    assert not sink_on(place).needs_finish


def test_the_job_itself_adds_to_what_it_has_published(place: FolderPlace, folder: Path) -> None:
    """Parts stay as they are unless a row of theirs was written over; readers see the one or the other."""
    run(place)
    before = {part["name"]: part["sha256"] for part in manifest(folder)["parts"]}
    with sink_on(place) as sink:
        newer = batch(0)
        newer.vectors[:] = 1.0
        sink.write(newer)
        sink.write(batch(ROWS // BATCH))
        assert seen(folder) == ROWS
        assert sink.count() == ROWS + BATCH
        sink.finish()
    after = {part["name"]: part["sha256"] for part in manifest(folder)["parts"]}
    assert seen(folder) == ROWS + BATCH
    kept = before.items() & after.items()
    assert 0 < len(kept) < len(before)
    assert sorted(path.name for path in folder.glob("*.parquet")) == sorted(after)
    with make_sink(f"parquet:{folder}", SinkOptions()) as reading:
        reader = reading.reader()
        assert reader is not None
        np.testing.assert_array_equal(reader.get(newer.keys[:1], vectors=True)[newer.keys[0]]["vector"], 1.0)


def test_another_job_is_refused_before_it_does_anything(place: FolderPlace, folder: Path) -> None:
    """Where a data set is published, or a claim lies: it says whose, and the ways on."""
    run(place)
    with pytest.raises(PublishConflictError, match=f"job {JOB} has published .*--overwrite"):
        run(place, OTHER)
    assert seen(folder) == ROWS
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


def test_overwriting_shows_the_old_rows_until_the_new_ones_are_published(place: FolderPlace, folder: Path) -> None:
    """And goes on replacing them after a kill, by a run that only says append."""
    run(place)
    with sink_on(place, OTHER, mode="overwrite") as sink:
        sink.write(batch(0))
        assert seen(folder) == ROWS
    run(place, OTHER, [1])
    assert seen(folder) == 2 * BATCH
    assert manifest(folder)["job"] == OTHER
    assert {JOB in path.name for path in folder.glob("*.parquet")} == {False}


def test_of_two_publishers_one_wins_and_the_other_leaves_nothing_shown(tmp_path: Path) -> None:
    """Both had begun before either was done."""
    for turn in range(20):
        folder = tmp_path / str(turn)
        winner = publish_at_once(partial(FolderPlace, folder))
        assert manifest(folder)["job"] == winner
        assert seen(folder) == BATCH
        assert {winner in path.name for path in folder.glob("*.parquet")} == {True}
        assert not (folder / "_publishing.json").exists()


def test_a_claim_that_two_were_refused_at_once_is_tried_again(
    place: FolderPlace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may answer 409 to both."""
    create, refused = place.create, [True, True]
    monkeypatch.setattr(place, "create", lambda *what: not refused.pop() if refused else create(*what))
    run(place)
    assert seen(folder) == ROWS
    assert refused == []


def test_two_that_overwrite_the_same_do_not_overwrite_each_other(place: FolderPlace, folder: Path) -> None:
    """The second was not told to replace what the first has published."""
    run(place)
    with sink_on(place, OTHER, mode="overwrite") as one, sink_on(place, "c" * 32, mode="overwrite") as other:
        for sink in (one, other):
            sink.write(batch(0))
        one.finish()
        with pytest.raises(PublishConflictError, match=f"job {OTHER} has published"):
            other.finish()
    assert manifest(folder)["job"] == OTHER
    assert seen(folder) == BATCH


def test_one_job_is_open_in_one_process(place: FolderPlace) -> None:
    """Another sink of the same job is told so."""
    with sink_on(place), pytest.raises(SinkError, match="open in another process"):
        sink_on(place).open()


@pytest.mark.slow
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_step_that_fails_leaves_all_or_nothing_and_is_done_again(tmp_path: Path, every: bool) -> None:
    """Every step of publishing, or one of each kind, before it was done and when only its answer was lost."""
    steps: list[tuple[str, str]] = []
    run(watched(FolderPlace(tmp_path / "undisturbed"), lambda name, at: steps.append((name, at))))
    undisturbed = digests(tmp_path / "undisturbed")
    assert len(steps) > 40
    for number in searched(steps, every=every):
        folder, left = tmp_path / str(number), [number]

        def fail(*_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise SinkError("a fault")

        with pytest.raises(SinkError, match="a fault"):
            run(watched(FolderPlace(folder), fail))
        assert seen(folder) in (None, ROWS), steps[number]
        all_written = seen(folder) or (folder / "_publishing.json").exists()
        run(FolderPlace(folder), batches=[] if all_written else range(ROWS // BATCH))
        assert (seen(folder), digests(folder)) == (ROWS, undisturbed), steps[number]


KILLS = [
    ("create _publishing.json", "before"),
    ("create _publishing.json", "after"),
    ("complete 00000.parquet", "after"),
    ("replace _SUCCESS.json", "before"),
    ("replace _SUCCESS.json", "after"),
    ("delete _publishing.json", "before"),
]


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize(("step", "when"), KILLS)
def test_a_publisher_that_is_killed_has_shown_all_or_nothing_and_goes_on(tmp_path: Path, step: str, when: str) -> None:
    """By SIGKILL, at each turn of publishing; going on gives the very files that an undisturbed run makes."""
    run(FolderPlace(tmp_path / "undisturbed"))
    folder = tmp_path / "rows"
    killed = subprocess.run([sys.executable, publishing.__file__, str(folder), step, when], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert seen(folder) == (ROWS if (step, when) in KILLS[-2:] else None)
    (left,) = leftovers(FolderPlace(folder))
    assert (left.job, left.is_live) == (JOB, False)
    run(FolderPlace(folder), batches=[])
    assert seen(folder) == ROWS
    assert digests(folder) == digests(tmp_path / "undisturbed")
    assert leftovers(FolderPlace(folder)) == []


# -- cleaning up ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize(("step", "when"), KILLS)
def test_what_a_dead_publisher_left_is_swept_away_and_others_may_publish(tmp_path: Path, step: str, when: str) -> None:
    """Its claim, and parts of it that are shown already; a data set that was complete stays, and is finished."""
    folder = tmp_path / "rows"
    place = FolderPlace(folder)
    with sink_on(place, OTHER) as sink:
        sink.write(batch(0))
    subprocess.run([sys.executable, publishing.__file__, str(folder), step, when], check=False)
    assert sweep(place, JOB)
    complete = (step, when) in KILLS[-2:]
    assert seen(folder) == (ROWS if complete else None)
    shown = [part["name"] for part in manifest(folder)["parts"]] if complete else []
    assert sorted(path.name for path in folder.glob("*.parquet")) == sorted(shown)
    assert [left.job for left in leftovers(place)] == [OTHER]
    if not complete:
        run(place, OTHER, [])
        assert seen(folder) == BATCH


def test_what_a_live_job_has_is_never_swept_away(place: FolderPlace, folder: Path) -> None:
    """Neither its rows nor its claim, however old."""
    with sink_on(place) as sink:
        sink.write(batch(0))
        (left,) = leftovers(place)
        assert (left.is_live, left.files > 1, left.nbytes > 0) == (True, True, True)
        assert not sweep(place, JOB)
        sink.finish()
    assert seen(folder) == BATCH
    assert leftovers(place) == []


def test_a_claim_of_a_dead_job_stops_others_and_says_so(place: FolderPlace, folder: Path) -> None:
    """Until it goes on, or is swept away."""

    def stop(name: str, at: str) -> None:
        if (name, at) == ("complete 00000.parquet", "after"):
            raise SinkError("a fault")

    with pytest.raises(SinkError, match="a fault"):
        run(watched(FolderPlace(folder), stop))
    with pytest.raises(PublishConflictError, match=f"job {JOB} .*has been publishing there .*penstock clean"):
        run(place, OTHER)
    with pytest.raises(CollectionMismatchError, match=f"job {JOB} has begun to publish"):
        make_sink(f"parquet:{folder}", SinkOptions()).open()
    assert sweep(place, JOB)
    run(place, OTHER, [0])
    assert seen(folder) == BATCH


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "a"}, "partition: parquet:.* has none"),
        ({"index": "HNSW"}, "index: parquet:.* has none"),
        ({"fields": {"ordinal": "int64"}}, "the data set has a column of this name"),
    ],
)
def test_what_a_data_set_does_not_have_is_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_sink(f"parquet:{folder}", SinkOptions(dimension=DIMENSION, **options))


def test_a_data_set_of_other_columns_is_not_added_to(place: FolderPlace) -> None:
    """Nor one of other vectors."""
    run(place, batches=[0])
    with pytest.raises(CollectionMismatchError, match="year int64"):
        sink_on(place, fields={"year": "int64"}).open()
    with pytest.raises(CollectionMismatchError, match="vectors of 8 dimensions, this job makes 4"):
        ParquetSink(place, 4, job=JOB).open()


def test_a_file_system_without_hard_links_is_refused_at_the_start(
    place: FolderPlace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not when all rows are there."""

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(SinkError, match=r"no hard link can be made there .*another file system"):
        sink_on(place).open()
    monkeypatch.undo()
    assert sweep(place, JOB)
    run(place)
    assert seen(folder) == ROWS


def test_a_full_disk_says_where_and_what_to_do(place: FolderPlace, folder: Path) -> None:
    """As any other trouble with the folder."""
    folder.write_text("a file")
    with pytest.raises(SinkError, match=r"rows cannot be written: .*run the job again"):
        sink_on(place).open()


@pytest.mark.parametrize(("dimension", "rows"), [(8, 4096), (512, 4096), (2048, 1024), (2**24, 100)])
def test_a_write_is_some_megabytes(place: FolderPlace, dimension: int, rows: int) -> None:
    """A file for each would be too many otherwise; and too much to lose by a kill."""
    assert ParquetSink(place, dimension).rows_per_write(100) == rows


def test_a_write_without_rows_makes_no_file(place: FolderPlace) -> None:
    """There is nothing to publish then."""
    with sink_on(place) as sink:
        sink.write(RowBatch([], np.empty((0, DIMENSION), np.float32), []))
        assert not sink.needs_finish
