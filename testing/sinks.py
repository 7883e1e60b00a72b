"""What every sink must hold: tests to subclass, for your own kind of sink."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ..errors import CollectionMismatchError, RowRefusedError
from ..sinks import RowBatch, Sink, WriteResult, row_key

DIMENSION = 8


def make_rows(count: int, first: int = 0, **columns: Any) -> RowBatch:
    """`count` rows with distinct keys, nearly orthogonal vectors that are a function of the key, and full columns."""
    numbers = range(first, first + count)
    vectors = np.stack([np.random.default_rng(number).standard_normal(DIMENSION) for number in numbers])
    extra = [{"path": f"/photos/{n}.jpg", "width": n, "height": 7, "label": f"é{n}", **columns} for n in numbers]
    return RowBatch([row_key(str(number)) for number in numbers], vectors.astype(np.float32), extra)


def indices(result: WriteResult) -> list[int]:
    """Of the rows that were refused."""
    return [index for index, _ in result.refused]


class SinkContract(ABC):
    """What every sink must do, also one that keeps no rows. A subclass says how to make one on a place of its own."""

    @pytest.fixture
    @abstractmethod
    def place(self, tmp_path: Path) -> Any:
        """A fresh, empty place."""

    @abstractmethod
    def make(self, place: Any, note: str = "") -> Sink:
        """A sink for vectors of `DIMENSION` floats on that place, not open; made with that note if it keeps notes."""

    @pytest.fixture
    def sink(self, place: Any) -> Iterator[Sink]:
        """One that is open."""
        with self.make(place) as opened:
            yield opened

    def test_every_row_that_fits_is_written(self, sink: Sink) -> None:
        """All are acknowledged when `write` returns."""
        assert sink.write(make_rows(20)) == WriteResult(20, [])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_vector_that_is_not_finite_is_refused_alone(self, sink: Sink, value: float) -> None:
        """NaN and infinity do not get into the store, and do not keep others out."""
        rows = make_rows(10)
        rows.vectors[4, 3] = value
        result = sink.write(rows)
        assert (result.written, indices(result)) == (9, [4])
        assert isinstance(result.refused[0][1], RowRefusedError)

    def test_of_equal_keys_in_one_write_both_are_counted(self, sink: Sink) -> None:
        """A key that is given twice is one row; both have been written."""
        rows = RowBatch(["same", "other", "same"], np.eye(3, DIMENSION, dtype=np.float32), [{}, {}, {}])
        assert sink.write(rows) == WriteResult(3, [])

    def test_an_empty_batch_is_nothing(self, sink: Sink) -> None:
        """No rows, no error."""
        assert sink.write(RowBatch([], np.empty((0, DIMENSION), np.float32), [])) == WriteResult(0, [])

    def test_vectors_of_another_dimension_are_a_mismatch(self, sink: Sink) -> None:
        """Wrong vectors are an error of the job, not of single rows; the message says which are right."""
        with pytest.raises(CollectionMismatchError, match=f"{DIMENSION} dimensions"):
            sink.write(RowBatch(["a"], np.ones((1, DIMENSION + 1), np.float32), [{}]))

    def test_several_threads_write_at_once(self, sink: Sink) -> None:
        """As many writers as the sink allows, and twice as many."""
        batches = [make_rows(25, first=20 * number) for number in range(4 * sink.threads)]
        with ThreadPoolExecutor(2 * sink.threads) as pool:
            assert [result.written for result in pool.map(sink.write, batches)] == [25] * len(batches)
        if sink.keeps_rows:
            assert sink.count() == len({key for rows in batches for key in rows.keys})

    def test_closing_twice_is_harmless(self, place: Any) -> None:
        """So is closing what was never open."""
        sink = self.make(place)
        sink.close()
        sink.close()

    def test_what_it_is_can_be_asked_before_it_is_open(self, place: Any) -> None:
        """By a job that has not started, without making anything. Two sinks on one place are the same for its books."""
        sink = self.make(place)
        assert sink.fingerprint == self.make(place).fingerprint
        assert sink.uri
        assert sink.threads >= 1
        assert sink.rows_per_write(100) >= 1
        assert isinstance(sink.has_secret, bool)
        assert isinstance(sink.next_step, str)
        memory = sink.memory(DIMENSION, 1000)
        assert memory is None or memory.nbytes >= 0
        assert sink.look() is None
        sink.close()


class StoreContract(SinkContract):
    """What a sink must do that keeps its rows."""

    unfit: ClassVar[Mapping[str, Any]] = {"label": {1, 2}}
    """A column whose value does not fit: a set is no JSON."""

    def read(self, sink: Any, keys: list[str]) -> dict[str, dict[str, Any]]:
        """Rows by key, with their columns, and the column ``vector``. Of a sink without a reader by other means."""
        reader = sink.reader()
        assert reader is not None, "a sink without a reader needs a read() in its contract"
        found: dict[str, dict[str, Any]] = reader.get(keys, vectors=True)
        return found

    def test_rows_are_found_again_with_all_their_columns(self, sink: Sink) -> None:
        """What was written is what is read: vector, path, size and metadata."""
        rows = make_rows(5, first=1, tags=["a", "b"], score=0.5, nothing=None)
        assert sink.write(rows) == WriteResult(5, [])
        found = self.read(sink, rows.keys)
        assert set(found) == set(rows.keys)
        for index, key in enumerate(rows.keys):
            wanted = {name: value for name, value in rows.columns[index].items() if value is not None}
            assert {**wanted, **found[key]} == {**found[key], **wanted}
            np.testing.assert_allclose(found[key]["vector"], rows.vectors[index])

    def test_writing_again_changes_nothing(self, sink: Sink) -> None:
        """The same rows twice are there once: what makes a retry harmless."""
        rows = make_rows(20)
        for _ in range(3):
            assert sink.write(rows).written == 20
        assert sink.count() == 20

    def test_a_row_with_a_known_key_is_written_over(self, sink: Sink) -> None:
        """The newest value of a key is the one that is kept."""
        sink.write(make_rows(3))
        newer = make_rows(3, label="new")
        newer.vectors[:] = 2.0
        sink.write(newer)
        found = self.read(sink, newer.keys)
        assert [found[key]["label"] for key in newer.keys] == ["new"] * 3
        np.testing.assert_allclose(found[newer.keys[0]]["vector"], 2.0)
        assert sink.count() == 3

    def test_of_equal_keys_in_one_write_the_last_wins(self, sink: Sink) -> None:
        """Whatever the store itself would make of them."""
        columns = [{"width": number} for number in range(3)]
        sink.write(RowBatch(["same", "other", "same"], np.eye(3, DIMENSION, dtype=np.float32), columns))
        assert sink.count() == 2
        assert self.read(sink, ["same"])["same"]["width"] == 2

    def test_a_row_that_does_not_fit_is_refused_alone(self, sink: Sink) -> None:
        """It costs that row only, and the message names it."""
        rows = make_rows(30)
        rows.columns[17].update(self.unfit)
        result = sink.write(rows)
        assert (result.written, indices(result)) == (29, [17])
        assert rows.keys[17] in str(result.refused[0][1])
        assert sink.count() == 29

    def test_a_look_finds_the_rows_and_makes_nothing(self, place: Any) -> None:
        """Also where the sink is not open; it counts a row that was written twice once."""
        looking = self.make(place)
        assert looking.look() is None
        assert looking.look() is None
        looking.close()
        with self.make(place) as sink:
            sink.write(make_rows(5))
            sink.write(make_rows(5, first=3))
        looking = self.make(place)
        found = looking.look()
        looking.close()
        assert found is not None
        assert found.rows == 8

    def test_what_its_first_writer_said_of_the_rows_is_kept(self, place: Any) -> None:
        """A job recognizes its own collection by it; who opens it later does not change it."""
        with self.make(place, note="the first") as sink:
            assert sink.note == "the first"
            sink.write(make_rows(1))
        with self.make(place, note="another") as sink:
            assert sink.note == "the first"
        looking = self.make(place)
        found = looking.look()
        looking.close()
        assert found is not None
        assert found.note == "the first"

    def test_finishing_keeps_every_row_and_may_be_done_again(self, place: Any) -> None:
        """What a job does at its end; a store that shows rows as they come has nothing to do."""
        with self.make(place) as sink:
            sink.finish()
            sink.write(make_rows(6))
            sink.finish()
            sink.finish()
            assert sink.count() == 6
            assert sink.write(make_rows(6, first=3)).written == 6
            sink.finish()
        with self.make(place) as sink:
            assert sink.count() == 9

    def test_rows_survive_closing_and_opening(self, place: Any) -> None:
        """A second sink on the same place sees what the first has written."""
        with self.make(place) as first:
            first.write(make_rows(12))
        with self.make(place) as second:
            assert second.count() == 12
            second.write(make_rows(12, first=6))
            assert second.count() == 18

    def test_every_row_can_be_found_once_the_index_was_waited_for(self, sink: Sink) -> None:
        """A store without an index has nothing to wait for."""
        sink.write(make_rows(10))
        state = sink.wait_index(60.0)
        assert state.indexed >= 10

    def test_a_scan_gives_every_row_once_with_all_its_columns(self, sink: Sink) -> None:
        """Where it can be read as a whole: in any order, of a key that was written over the newest row."""
        sink.write(make_rows(40, first=1))
        newer = make_rows(10, first=5, label="new")
        sink.write(newer)
        scanner = sink.scanner()
        if scanner is not None:
            found: dict[str, tuple[dict[str, Any], Any]] = {}
            for rows in scanner.scan():
                assert not found.keys() & set(rows.keys)
                found |= dict(zip(rows.keys, zip(rows.columns, rows.vectors, strict=True), strict=True))
            assert len(found) == 40
            for rows in (make_rows(4, first=1), newer):
                for key, columns, vector in zip(rows.keys, rows.columns, rows.vectors, strict=True):
                    assert found[key][0] == columns
                    np.testing.assert_allclose(found[key][1], vector)

    def test_rows_that_are_taken_out_are_gone(self, sink: Sink) -> None:
        """Where they can be: the others stay, and what is not there is no error."""
        rows = make_rows(20)
        sink.write(rows)
        deleter = sink.deleter()
        if deleter is not None:
            deleter.delete([*rows.keys[:5], row_key("never was there")])
            assert sink.count() == 15
            assert set(self.read(sink, rows.keys)) == set(rows.keys[5:])
            assert sink.write(make_rows(1)).written == 1
            assert sink.count() == 16

    def test_a_search_gives_the_nearest_first(self, sink: Sink) -> None:
        """Where it can be searched: the row itself comes first, with its columns."""
        rows = make_rows(20)
        sink.write(rows)
        reader = sink.reader()
        if reader is not None:
            hits = reader.search(rows.vectors[11], 4)
            assert len(hits) == 4
            assert (hits[0].key, hits[0].path, hits[0].width) == (rows.keys[11], "/photos/11.jpg", 11)
            assert hits[0].metadata["label"] == "é11"
