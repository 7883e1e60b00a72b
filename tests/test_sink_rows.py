"""Rows, keys and results: what every sink shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError, RowRefusedError
from penstock.sinks import RowBatch, WriteResult, concat, is_fit_key, row_key
from penstock.sinks.milvus.uri import parse_uri
from penstock.sinks.rows import screen


def batch(keys: list[str], vectors: Any = None) -> RowBatch:
    values = np.ones((len(keys), 3), np.float32) if vectors is None else np.asarray(vectors, np.float32)
    return RowBatch(keys, values, [{} for _ in keys])


def test_a_row_key_is_a_fixed_function_of_the_name() -> None:
    """The digest is pinned: if it changed, every rerun would double every row."""
    assert row_key("/photos/a.jpg") == "46dd5d5b92eb57143f7758e85de62008"
    assert row_key(Path("/photos/a.jpg")) == row_key("/photos/a.jpg")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_and_their_decoded_path_have_the_same_key(name: bytes) -> None:
    """A file name that is not UTF-8 has one key, whether it is met as bytes or as text."""
    assert row_key(name) == row_key(os.fsdecode(name))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=30))
def test_any_text_has_a_key_that_fits(name: str) -> None:
    """Also lone surrogates, which have no UTF-8, and the empty name."""
    assert is_fit_key(row_key(name))


@pytest.mark.parametrize("key", ["", "x" * 129, "é" * 65, '" or 1==1 or "', "it's", "a\\b", "a\nb", "\x00", "\ud800"])
def test_a_key_that_could_be_an_expression_or_too_long_is_refused(key: str) -> None:
    """Such keys are refused before they reach a filter expression, with the way out."""
    screened = screen(batch([key]))
    assert screened.kept == []
    assert "row_key" in str(screened.refused[0][1])


@pytest.mark.parametrize("key", ["a", "x" * 128, "é" * 64, "photos/2020 (1).jpg#frame=3", "図"])
def test_a_plain_key_of_the_user_is_kept(key: str) -> None:
    """Users may bring their own keys."""
    assert screen(batch([key])).kept == [0]


@pytest.mark.parametrize(
    "vectors",
    [np.ones((2, 3)), np.ones(2, np.float32), np.ones((3, 2), np.float32).T, np.ones((1, 3), np.float32)],
    ids=["float64", "one dimension", "not contiguous", "fewer than keys"],
)
def test_vectors_of_another_form_are_a_config_error(vectors: Any) -> None:
    """A wrong dtype or layout would be written as wrong numbers, so it is refused at once."""
    with pytest.raises(ConfigError, match="vectors"):
        RowBatch(["a", "b"], vectors, [{}, {}])


def test_concat_keeps_the_order_and_refuses_mixed_dimensions() -> None:
    """Rows of several batches become one batch, or an error."""
    joined = concat([batch(["a"], [[1, 2, 3]]), batch(["b", "c"], [[4, 5, 6], [7, 8, 9]])])
    assert joined.keys == ["a", "b", "c"]
    assert joined.vectors[:, 0].tolist() == [1, 4, 7]
    with pytest.raises(ConfigError):
        concat([batch(["a"]), batch(["b"], [[1, 2]])])
    with pytest.raises(ConfigError):
        concat([])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), max_size=12))
def test_every_row_is_either_written_or_refused(rows: list[tuple[str, bool, bool]]) -> None:
    """For any mix of repeated keys, NaN and refused rows the books balance, and the last finite row wins."""
    vectors = [[1.0, 2.0, 3.0 if finite else float("nan")] for _, finite, _ in rows]
    screened = screen(batch([key for key, _, _ in rows], vectors or np.ones((0, 3))))
    by_sink = [(index, RowRefusedError("no")) for index in screened.kept if rows[index][2]]
    result = screened.result(by_sink)

    refused = [index for index, _ in result.refused]
    assert result.written + len(refused) == len(rows)
    assert refused == sorted(set(refused))
    for index in screened.kept:
        later = [other for other, (key, finite, _) in enumerate(rows) if key == rows[index][0] and finite]
        assert index == later[-1]
        assert all((member in refused) == rows[index][2] for member in later)
    assert {index for index, (_, finite, _) in enumerate(rows) if not finite} <= set(refused)


def test_an_empty_batch_is_written_at_once() -> None:
    """No rows: nothing written, nothing refused."""
    assert screen(batch([])).result([]) == WriteResult(0, [])


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:19530?token=s3cret",
        "http://user:s3/cret@host:19530",
        "http://user:s3cret@host:port",
        "https://user:s3cret@host/a/b",
        "ftp://user:s3cret@host",
    ],
)
def test_an_address_that_is_refused_shows_no_secret(uri: str) -> None:
    """Wherever in it the secret stood."""
    with pytest.raises(ConfigError) as caught:
        parse_uri(uri)
    assert "s3" not in str(caught.value)
