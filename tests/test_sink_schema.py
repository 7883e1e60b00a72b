"""What a collection is made with: typed fields, partitions, index, overwriting; on Milvus Lite and on a full server."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymilvus import MilvusClient

from penstock.engine.servers import MilvusLiteServer, MilvusServer
from penstock.errors import CollectionMismatchError, ConfigError, RowRefusedError, SinkError
from penstock.sinks import MilvusSink, RowBatch, ScalarField, parse_fields
from penstock.sinks.base import IndexState
from penstock.sinks.fields import INTEGERS
from penstock.sinks.milvus.collection import wait_for_index
from penstock.sinks.milvus.index_options import check_index
from penstock.sinks.milvus.rows import decode_columns, encode_row
from penstock.sinks.milvus.schema import COLUMNS, Layout, knows_null, places_upserts

DIMENSION = 8

Open = Callable[..., MilvusSink]


def make_rows(count: int, first: int = 0, **columns: Any) -> RowBatch:
    numbers = range(first, first + count)
    vectors = np.stack([np.random.default_rng(number).standard_normal(DIMENSION) for number in numbers])
    extra = [{"path": f"/{n}.jpg", "width": n + 1, "height": 7, "year": 2000 + n, **columns} for n in numbers]
    return RowBatch([f"k{number}" for number in numbers], vectors.astype(np.float32), extra)


ONES = np.ones(DIMENSION, np.float32)


# --- values and declarations, without a server


@pytest.mark.parametrize(
    ("declared", "field"),
    [
        ({"year": "int64"}, ScalarField("year", "int64")),
        ({"album": "varchar(12)"}, ScalarField("album", "varchar", 12)),
        ({"album": "VARCHAR"}, ScalarField("album", "varchar", 65_535)),
        ({"info": "json"}, ScalarField("info", "json")),
    ],
)
def test_a_field_is_declared_by_name_and_type(declared: dict[str, str], field: ScalarField) -> None:
    """A varchar without a length is as long as Milvus allows."""
    assert parse_fields(declared) == (field,)


@pytest.mark.parametrize(
    "declared",
    [
        {"year": "int65"},
        {"year": "int64(3)"},
        {"album": "varchar(0)"},
        {"album": "varchar(65536)"},
        {"album": "varchar(x)"},
        {"1a": "int8"},
        {"": "int8"},
        {"a b": "int8"},
    ],
    ids=str,
)
def test_a_field_that_cannot_be_is_refused_by_name(declared: dict[str, str]) -> None:
    """Before a server is asked."""
    with pytest.raises(ConfigError, match="field"):
        parse_fields(declared)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"fields": {"path": "varchar(10)"}}, "'path'.*already"),
        ({"fields": {"vector": "json"}}, "'vector'.*already"),
        ({"partition": "p", "partition_key": "album"}, "exclude one another"),
        ({"partition": "a-b"}, "partition: 'a-b'"),
        ({"partition_key": "f", "fields": {"f": "float"}}, "partition_key: 'f' must be"),
        ({"index": "HNWS"}, "did you mean HNSW"),
        ({"index": "HNSW", "index_params": {"m": 8}}, "no parameter 'm'.*M"),
        ({"index": "HNSW", "index_params": {"M": 1}}, "M=1 is not possible, 2 to 2048"),
        ({"index": "HNSW", "index_params": {"M": "many"}}, "M=many"),
        ({"index": "FLAT", "index_params": {"M": 8}}, "FLAT has no parameter.*takes none"),
    ],
    ids=str,
)
def test_a_shape_that_cannot_be_is_refused_without_a_server(setting: dict[str, Any], words: str) -> None:
    """Milvus Lite would take some of these without a word."""
    with pytest.raises(ConfigError, match=words):
        MilvusSink("http://127.0.0.1:1", "images", 4, **setting)


def test_an_index_gets_the_parameters_it_cannot_do_without() -> None:
    """What is given goes before."""
    assert check_index("HNSW", {"M": 8}) == {"M": 8, "efConstruction": 200}
    assert check_index("AUTOINDEX", {}) == {}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("bool", [True, np.True_], [1, "true", 0.0]),
        ("int8", [-128, 127, np.int64(5)], [128, True, 1.0, "1"]),
        ("int64", [2**63 - 1, -(2**63)], [2**63, 1.5]),
        ("float", [1, 0.5, np.float32(2)], [1e300, float("nan"), float("inf"), "1", True]),
        ("double", [1e300], [float("nan")]),
        ("varchar(3)", ["abc", "é", ""], ["abcd", "éé", 5, "\ud800", b"a"]),
        ("json", [{}, {"a": [1, None]}, {"n": np.float32(1)}], ["text", [1], 5, {"a": float("nan")}, {"a": object()}]),
    ],
)
def test_a_value_fits_its_type_or_is_refused(kind: str, good: list[Any], bad: list[Any]) -> None:
    """Nothing is rounded, cut or converted silently; Milvus itself takes some of the wrong ones."""
    (field,) = parse_fields({"x": kind})
    for value in good:
        field.fitted(value)
    for value in bad:
        with pytest.raises(ValueError, match=r"."):
            field.fitted(value)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["bool", *INTEGERS, "float", "double", "varchar(5)", "json"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dictionaries(st.text(), st.floats()),
)
def test_any_value_of_a_field_is_encoded_or_refuses_its_row(kind: str, value: Any) -> None:
    """Whatever metadata holds, the only error is that of the row, and it names the field and its type."""
    layout = Layout(DIMENSION, (*COLUMNS, *parse_fields({"x": kind})))
    rows = RowBatch(["k"], ONES[None], [{"x": value}])
    try:
        row, _ = encode_row(rows, 0, layout)
    except RowRefusedError as error:
        refusal = str(error)
    else:
        assert (row["x"] is None) == (value is None)
        return
    assert f"'x' does not fit its field ({kind})" in refusal


def test_where_there_is_no_null_other_values_stand_for_it() -> None:
    """A picture has no width of 0, so on old servers 0 says that there is none; a user's field has no such value."""
    required = tuple(ScalarField(field.name, field.kind, field.length, False, field.default) for field in COLUMNS)
    row, _ = encode_row(RowBatch(["k"], ONES[None], [{}]), 0, Layout(DIMENSION, required))
    assert (row["path"], row["width"], row["height"]) == ("", 0, 0)
    assert decode_columns(row) == {}
    with pytest.raises(RowRefusedError, match=r"no 'year'.*required"):
        encode_row(
            RowBatch(["k"], ONES[None], [{}]), 0, Layout(DIMENSION, (ScalarField("year", "int64", nullable=False),))
        )


def test_what_a_server_can_is_told_by_its_version() -> None:
    """Old ones take the word and forget it. What does not tell its version is new."""
    known = ("v2.5.0", "v2.10.1", "3.0", "milvus_lite-3.2.2", "Zilliz Cloud")
    assert [knows_null(version) for version in ("v2.3.5-lite", "2.4.17", *known)] == [False] * 2 + [True] * 5
    assert [places_upserts(version) for version in ("v2.3.5-lite", "2.4.17", *known)] == [False] + [True] * 6


def test_waiting_for_the_index_ends_with_it_or_at_the_deadline() -> None:
    """It is over when the index covers what the collection holds, not when the server has nothing to do."""
    states = iter([IndexState(0, 0), IndexState(50, 50), IndexState(100, 60), IndexState(120, 120)])
    seen: list[int] = []
    done = wait_for_index(lambda: next(states), 100, 60.0, lambda state: seen.append(state.indexed))
    assert (done.rows, done.indexed, seen) == (120, 120, [0, 50, 60, 120])
    with pytest.raises(SinkError, match=r"covers 3 of 10 rows after 0\.1 s.*--wait-index"):
        wait_for_index(lambda: IndexState(10, 3), 10, 0.1, lambda _: None)


# --- the same on every server


class ShapeContract(ABC):
    """What fields, partitions and overwriting mean, wherever the collection is."""

    nulls = True

    @pytest.fixture
    @abstractmethod
    def uri(self) -> str:
        """Of a running server."""

    @pytest.fixture
    def open_sink(self, uri: str) -> Iterator[Open]:
        """Opens sinks on one collection; it is dropped behind the test."""
        name = f"c{uuid.uuid4().hex}"
        with ExitStack() as stack:

            def opened(dimension: int | None = DIMENSION, **shape: Any) -> MilvusSink:
                return stack.enter_context(MilvusSink(uri, name, dimension, **shape))

            yield opened
            client = MilvusClient(uri, dedicated=True)
            client.drop_collection(name)
            client.close()

    def test_fields_are_filled_from_metadata_and_refuse_what_does_not_fit(self, open_sink: Open) -> None:
        """The rest of the metadata is kept as before; a wrong value costs its row, and says which field."""
        fields = {"year": "int64", "album": "varchar(8)", "info": "json", "ok": "bool", "mark": "float"}
        sink = open_sink(fields=fields)
        values: dict[str, Any] = {"album": "summer", "info": {"a": [1]}, "ok": True, "mark": 0.5}
        rows = make_rows(4, **values, other="x")
        rows.columns[2]["album"] = "much too long"
        result = sink.write(rows)
        assert (result.written, [index for index, _ in result.refused]) == (3, [2])
        assert "'album' does not fit its field (varchar(8))" in str(result.refused[0][1])
        found = sink.get(["k0"])["k0"]
        assert found == {"path": "/0.jpg", "width": 1, "height": 7, "year": 2000, **values, "other": "x"}
        assert [hit.key for hit in sink.search(ONES, filter='year == 2003 and album == "summer"')] == ["k3"]

    def test_a_row_without_a_value_is_kept_where_there_is_null(self, open_sink: Open) -> None:
        """Elsewhere it is refused: a year that nobody gave must not become 0."""
        sink = open_sink(fields={"year": "int64"})
        result = sink.write(RowBatch(["a"], ONES[None], [{"path": "/a"}]))
        assert result.written == (1 if self.nulls else 0)
        assert all("'year'" in str(error) for _, error in result.refused)
        assert "year" not in sink.get(["a"]).get("a", {})

    def test_a_picture_without_path_and_size_is_kept_everywhere(self, open_sink: Open) -> None:
        """Bytes have no path; what is not there does not come back as 0."""
        sink = open_sink()
        assert sink.write(RowBatch(["a"], ONES[None], [{"m": 1}])).written == 1
        assert sink.get(["a"]) == {"a": {"m": 1}}
        (hit,) = sink.search(ONES, 1)
        assert (hit.path, hit.width, hit.metadata) == (None, None, {"m": 1})

    @pytest.mark.parametrize(
        ("shape", "words"),
        [
            ({"fields": {"year": "int32"}}, "'year' is int64, this job asks for int32"),
            (
                {"fields": {"year": "int64", "album": "varchar(9)"}},
                r"'album' is varchar\(8\), .* asks for varchar\(9\)",
            ),
            ({"fields": {"year": "int64", "new": "bool"}}, r"has no field 'new' \(bool\)"),
            ({"fields": {"year": "int64"}, "partition_key": "year"}, "partition key is None.*asks for 'year'"),
        ],
        ids=str,
    )
    def test_another_shape_is_a_mismatch(self, open_sink: Open, shape: dict[str, Any], words: str) -> None:
        """Said before anything is written, with every way out."""
        open_sink(fields={"year": "int64", "album": "varchar(8)"})
        with pytest.raises(CollectionMismatchError, match=rf"{words}.*--overwrite"):
            open_sink(**shape)

    def test_a_partition_keeps_to_itself(self, open_sink: Open) -> None:
        """Writes, counts, reads and searches of a sink are about its partition; the whole is all of them."""
        part, whole = open_sink(partition="north"), open_sink()
        part.write(make_rows(5))
        whole.write(make_rows(4, first=50))
        assert (part.count(), whole.count()) == (5, 9)
        assert {hit.key for hit in part.search(ONES, 20)} == {f"k{n}" for n in range(5)}
        assert len(whole.search(ONES, 20)) == 9
        assert set(part.get(["k1", "k50"])) == {"k1"}

    def test_a_partition_that_is_not_there_is_made_for_writing_only(self, open_sink: Open) -> None:
        """Who searches a misspelled one is told which there are."""
        open_sink(partition="north")
        with pytest.raises(CollectionMismatchError, match=r"no partition 'nroth', only .*'north'"):
            open_sink(None, partition="nroth")
        open_sink(None, partition="north")

    def test_overwriting_a_partition_leaves_the_others(self, open_sink: Open) -> None:
        """And the new rows are there, also those of later writes."""
        open_sink().write(make_rows(4, first=50))
        open_sink(partition="north").write(make_rows(5))
        sink = open_sink(partition="north", mode="overwrite")
        assert sink.count() == 5
        sink.write(make_rows(2, first=10))
        sink.write(make_rows(2, first=20))
        assert (sink.count(), open_sink(None).count()) == (4, 8)
        assert {hit.key for hit in sink.search(ONES, 20)} == {"k10", "k11", "k20", "k21"}

    def test_a_partition_key_divides_by_its_values(self, open_sink: Open) -> None:
        """A row whose value changes moves, one without a value is refused; named partitions are not for it."""
        sink = open_sink(partition_key="album")
        sink.write(make_rows(4, album="a"))
        sink.write(make_rows(2, album="b"))
        assert sink.count() == 4
        assert {hit.key for hit in sink.search(ONES, 9, filter='album == "b"')} == {"k0", "k1"}
        assert "'album'" in str(sink.write(make_rows(1)).refused[0][1])
        with pytest.raises(CollectionMismatchError, match="divides it by its partition key 'album'"):
            open_sink(partition="north", partition_key=None, fields={"album": "varchar(65535)"})

    def test_overwriting_takes_nothing_away_before_there_are_new_rows(self, open_sink: Open) -> None:
        """The job may have another shape and model; the old rows go with its first write, all of them."""
        open_sink(note="old").write(make_rows(6))
        sink = open_sink(mode="overwrite", note="new", fields={"year": "int64"}, metric="L2")
        assert (sink.note, sink.count()) == ("new", 6)
        sink.write(RowBatch([], np.empty((0, DIMENSION), np.float32), []))
        assert sink.count() == 6
        sink.write(make_rows(2, first=10))
        sink.write(make_rows(2, first=20))
        assert sink.count() == 4
        assert open_sink(None, metric="L2").note == "new"

    def test_the_index_covers_every_row_after_waiting(self, open_sink: Open) -> None:
        """Whatever its type and parameters."""
        sink = open_sink(index="HNSW", index_params={"M": 8, "efConstruction": 40})
        rows = make_rows(300)
        sink.write(rows)
        seen: list[IndexState] = []
        state = sink.wait_index(60.0, seen.append)
        assert state.indexed >= 300
        assert seen[-1] == state
        assert sink.search(rows.vectors[7], 1)[0].key == "k7"


class TestShapeOnMilvusLite(ShapeContract):
    """A ``milvus-lite server``."""

    @pytest.fixture
    def uri(self, milvus_lite_server: MilvusLiteServer) -> str:
        return milvus_lite_server.uri


@pytest.mark.slow
class TestShapeOnMilvus(ShapeContract):
    """The full server, 2.3.5: it has no null and no properties."""

    nulls = False

    @pytest.fixture
    def uri(self, milvus: MilvusServer) -> str:
        return milvus.uri

    def test_a_partition_key_divides_by_its_values(self, open_sink: Open) -> None:
        """This server would lose rows to searches by the key: it is refused, and says so."""
        with pytest.raises(ConfigError, match=r"partition_key: .*v2\.3\.5.*2\.4"):
            open_sink(partition_key="album")
        open_sink()  # the fixture drops it

    def test_what_the_server_refuses_to_make_costs_no_row(self, open_sink: Open) -> None:
        """The new collection is tried under another name first: this server was built without GPUs."""
        sink = open_sink()
        sink.write(make_rows(3))
        with pytest.raises(SinkError, match="index"):
            open_sink(mode="overwrite", index="GPU_CAGRA")
        assert sink.count() == 3
