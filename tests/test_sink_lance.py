"""Rows in a Lance dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import CollectionMismatchError, ConfigError
from penstock.sinks import Sink, SinkOptions, make_sink
from penstock.testing.sinks import StoreContract, make_rows
from penstock.tests.table_sinks import assert_finds_the_nearest, sink_at

lance = pytest.importorskip("lance")


class TestLance(StoreContract):
    """The contract."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "rows.lance"

    def make(self, place: Any, note: str = "") -> Sink:
        return sink_on(place, note=note)


def sink_on(folder: Path, **options: Any) -> Sink:
    return sink_at(f"lance:{folder}", **options)


def test_finishing_joins_what_the_writes_have_made(tmp_path: Path) -> None:
    """One piece, one version; any tool that knows Lance reads it."""
    with sink_on(tmp_path / "rows.lance", fields={"turn": "int32"}) as sink:
        for turn in range(6):
            sink.write(make_rows(10, first=5 * turn, turn=turn))
        sink.finish()
        assert sink.count() == 35
    dataset = lance.dataset(str(tmp_path / "rows.lance"))
    assert len(dataset.get_fragments()) == len(dataset.versions()) == 1
    assert dataset.to_table(columns=["turn"]).column("turn").to_pylist().count(5) == 10


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_the_nearest_are_those_that_a_sort_finds(tmp_path: Path, metric: str) -> None:
    """By each metric; scores are those of other stores."""
    rows = make_rows(50)
    with sink_on(tmp_path / "rows.lance") as sink:
        sink.write(rows)
    assert_finds_the_nearest(f"lance:{tmp_path / 'rows.lance'}", rows, metric)


def test_a_key_cannot_be_an_expression(tmp_path: Path) -> None:
    """Asking for a hostile id gives nothing, not everything."""
    with sink_on(tmp_path / "rows.lance") as sink:
        sink.write(make_rows(3))
        reader = sink.reader()
        assert reader is not None
        for hostile in ("' OR 1=1 OR '", "') OR (1=1", "\\"):
            assert reader.get([hostile]) == {}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Other vectors, other columns, nothing to read; overwriting is the way on."""
    folder = tmp_path / "rows.lance"
    with pytest.raises(CollectionMismatchError, match="there is no dataset"):
        make_sink(f"lance:{folder}", SinkOptions()).open()
    with sink_on(folder) as sink:
        sink.write(make_rows(3))
    with pytest.raises(CollectionMismatchError, match="vectors of 8 dimensions, this job makes 4"):
        sink_on(folder, dimension=4).open()
    with pytest.raises(CollectionMismatchError, match="year int64"):
        sink_on(folder, fields={"year": "int64"}).open()
    with sink_on(folder, dimension=4, mode="overwrite") as sink:
        assert sink.count() == 3
        rows = make_rows(2)
        rows = type(rows)(rows.keys, np.ascontiguousarray(rows.vectors[:, :4]), rows.columns)
        sink.write(rows)
        assert sink.count() == 2


def test_a_field_cannot_have_the_name_of_what_a_search_answers(tmp_path: Path) -> None:
    """No search could be made."""
    with pytest.raises(ConfigError, match="'_distance': the data set has a column of this name"):
        sink_on(tmp_path / "rows.lance", fields={"_distance": "float"})
