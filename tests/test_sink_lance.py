"""Rows in a Lance dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import CollectionMismatchError, ConfigError
from penstock.sinks import Sink, SinkOptions, make_sink
from penstock.testing.sinks import DIMENSION, StoreContract, make_rows

lance = pytest.importorskip("lance")


class TestLance(StoreContract):
    """The contract."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "rows.lance"

    def make(self, place: Any, note: str = "") -> Sink:
        return sink_on(place, note=note)


def sink_on(folder: Path, **options: Any) -> Sink:
    with_dimension: dict[str, Any] = {"dimension": DIMENSION, **options}
    return make_sink(f"lance:{folder}", SinkOptions(**with_dimension))


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
def test_scores_are_those_of_other_stores(tmp_path: Path, metric: Any) -> None:
    """Cosine and inner product: more is nearer. L2: the square of the distance."""
    rows = make_rows(50)
    with sink_on(tmp_path / "rows.lance") as sink:
        sink.write(rows)
    query = rows.vectors[3] + 0.1
    products = rows.vectors @ query
    norms = np.linalg.norm(rows.vectors, axis=1) * np.linalg.norm(query)
    wanted = {"COSINE": products / norms, "IP": products, "L2": ((rows.vectors - query) ** 2).sum(1)}[metric]
    nearest = np.argsort(wanted if metric == "L2" else -wanted)[:5]
    with make_sink(f"lance:{tmp_path / 'rows.lance'}", SinkOptions(metric=metric)) as sink:
        reader = sink.reader()
        assert reader is not None
        hits = reader.search(query, 5)
        with pytest.raises(ConfigError, match=r"\[3\] given, \[8\] needed"):
            reader.search(np.zeros(3, np.float32))
    assert [hit.key for hit in hits] == [rows.keys[row] for row in nearest]
    np.testing.assert_allclose([hit.score for hit in hits], wanted[nearest], rtol=1e-4)


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
