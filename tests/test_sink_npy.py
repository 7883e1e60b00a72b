"""Vectors as NumPy files, in clip-retrieval's convention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import CollectionMismatchError, ConfigError, SinkError
from penstock.sinks import Sink
from penstock.testing.sinks import DIMENSION, StoreContract, make_rows
from penstock.tests.table_sinks import assert_finds_the_nearest, sink_at

pq = pytest.importorskip("pyarrow.parquet")


class TestNpy(StoreContract):
    """The contract."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "embeddings"

    def make(self, place: Any, note: str = "") -> Sink:
        return sink_on(place, note=note)


def sink_on(folder: Path, **options: Any) -> Sink:
    return sink_at(f"npy:{folder}", **options)


def pairs(folder: Path) -> list[tuple[Any, Any]]:
    """Matrices, each with its metadata, by the names that tools join them by."""
    matrices = sorted((folder / "img_emb").iterdir())
    tables = sorted((folder / "metadata").iterdir())
    numbers = [[path.stem.rpartition("_")[2] for path in paths] for paths in (matrices, tables)]
    assert numbers[0] == numbers[1]
    return [(np.load(matrix), pq.read_table(table)) for matrix, table in zip(matrices, tables, strict=True)]


def test_files_are_those_of_clip_retrieval(tmp_path: Path) -> None:
    """A matrix and a table with the same number and order, and ``image_path``."""
    with sink_on(tmp_path / "out", fields={"label": "varchar(9)"}) as sink:
        sink.write(make_rows(5))
        sink.write(make_rows(5, first=5))
        sink.finish()
    found = pairs(tmp_path / "out")
    assert [(matrix.dtype, matrix.shape) for matrix, _ in found] == [(np.float32, (5, DIMENSION))] * 2
    np.testing.assert_array_equal(np.concatenate([matrix for matrix, _ in found]), make_rows(10).vectors)
    found_rows = [row for _, table in found for row in table.to_pylist()]
    assert [row["image_path"] for row in found_rows] == [f"/photos/{number}.jpg" for number in range(10)]
    assert [row["label"] for row in found_rows] == [f"é{number}" for number in range(10)]


def test_each_key_is_there_once_when_it_is_finished(tmp_path: Path) -> None:
    """Pairs without such rows stay as they are; one of which nothing is left goes."""
    folder = tmp_path / "out"
    with sink_on(folder) as sink:
        for first, count in ((0, 4), (4, 4), (2, 4), (20, 2), (20, 2)):
            sink.write(make_rows(count, first=first, turn=first))
        kept = (folder / "img_emb" / "img_emb_00002.npy").stat().st_mtime_ns
        before = sink.needs_finish
        sink.finish()
        assert (before, sink.needs_finish) == (True, False)
        assert sink.count() == 10
    found = pairs(folder)
    assert sorted(path for _, table in found for path in table.column("image_path").to_pylist()) == sorted(
        f"/photos/{number}.jpg" for number in (*range(8), 20, 21)
    )
    assert (folder / "img_emb" / "img_emb_00002.npy").stat().st_mtime_ns == kept
    assert sum(len(matrix) for matrix, _ in found) == 10


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_the_nearest_are_those_that_a_sort_finds(tmp_path: Path, metric: str) -> None:
    """By each metric, over several pairs; rows that were written over are not found."""
    rows = make_rows(50)
    with sink_on(tmp_path / "out") as sink:
        older = make_rows(20)
        older.vectors[:] = rows.vectors[7]
        for batch in (older, make_rows(20), make_rows(30, first=20)):
            sink.write(batch)
    assert_finds_the_nearest(f"npy:{tmp_path / 'out'}", rows, metric)


def test_metadata_whose_matrix_was_not_written_is_not_there(tmp_path: Path) -> None:
    """As after a kill between the two: its number is taken again."""
    folder = tmp_path / "out"
    with sink_on(folder) as sink:
        sink.write(make_rows(3))
    (folder / "img_emb" / "img_emb_00000.npy").unlink()
    with sink_on(folder) as sink:
        assert (sink.look(), sink.count()) == (None, 0)
        sink.write(make_rows(2, first=7))
    assert [len(matrix) for matrix, _ in pairs(folder)] == [2]


def test_overwriting_waits_for_the_first_rows(tmp_path: Path) -> None:
    """Others that are open, or have other vectors, are refused."""
    folder = tmp_path / "out"
    with sink_on(folder) as sink:
        sink.write(make_rows(3))
        with pytest.raises(SinkError, match="open in another process"):
            sink_on(folder).open()
    with pytest.raises(CollectionMismatchError, match="vectors of 8 dimensions, this job makes 4"):
        sink_on(folder, dimension=4).open()
    with sink_on(folder, mode="overwrite") as sink:
        assert sink.count() == 3
        sink.write(make_rows(2))
        assert sink.count() == 2


def test_a_field_cannot_have_the_name_of_a_column_of_the_format(tmp_path: Path) -> None:
    """No table can be read that has a column twice."""
    with pytest.raises(ConfigError, match="'image_path': the data set has a column of this name"):
        sink_on(tmp_path / "out", fields={"image_path": "varchar"})
