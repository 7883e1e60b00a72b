"""Signatures: what is packed behind a vector, columns on disk, and the linear pass that merges them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from penstock.engine.embedders import ArrayView, parse_embedder
from penstock.errors import ConfigError, SinkError
from penstock.preprocess import PreprocessSpec
from penstock.preprocess.pdq import luma, pdq, quality
from penstock.preprocess.signature import TAIL, tail_of, unpacked
from penstock.sinks import RowBatch, SinkOptions, WriteResult, make_sink
from penstock.sinks.signatures import Signatures, SignatureWriter, merge, parts_in, read_signatures
from penstock.sinks.signatures.columns import encoded
from penstock.sinks.signatures.files import key_hash

WIDTH = 8


def some(*keys: str, side: int = 1) -> Signatures:
    vectors = np.stack([np.random.default_rng(len(key)).standard_normal(WIDTH) for key in keys]).astype(np.float32)
    return Signatures.of(list(keys), vectors, short_side=[side] * len(keys), groups=[key[:1] for key in keys])


def pixels(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_what_is_packed_behind_vectors_comes_out_again() -> None:
    """To the last bit, through floats."""
    tail = tail_of(pixels(3))
    vectors, found = unpacked(np.hstack([np.ones((3, 5), np.float32), tail.packed()]))
    assert (vectors == 1).all()
    for name in ("pdq", "digest", "quality", "sharpness"):
        np.testing.assert_array_equal(getattr(found, name), getattr(tail, name))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_embedder_gives_gist_and_what_the_pixels_say(layout: Literal["NCHW", "NHWC"]) -> None:
    """In both layouts of pixels."""
    rgb = pixels(2)
    given = np.ascontiguousarray(np.moveaxis(rgb, -1, 1)) if layout == "NCHW" else rgb
    spec = PreprocessSpec(size=64, resize=None, dtype="uint8", layout=layout)
    rows = []
    for name in ("gist", "signature"):
        with parse_embedder(name) as embedder:
            embedder.open(spec, 2)
            view = ArrayView(given, np.zeros((2, embedder.dimension), np.float32))
            assert not embedder.embed(view, 2)
            rows.append(view.embeddings)
    vectors, tail = unpacked(rows[1])
    np.testing.assert_array_equal(vectors, rows[0])
    np.testing.assert_array_equal(tail.pdq, pdq(luma(rgb)))
    np.testing.assert_array_equal(tail.quality, quality(luma(rgb)))


def test_the_embedder_refuses_other_pixels() -> None:
    """The message says what to leave out."""
    with pytest.raises(ConfigError, match="--image-size"):
        parse_embedder("signature").check(PreprocessSpec(size=128, resize=None, dtype="uint8"))


def test_a_vector_is_kept_as_its_direction() -> None:
    """A cosine is off by less than 0.003; a vector of zeros stays one."""
    vectors = np.random.default_rng(0).standard_normal((40, 512)).astype(np.float32)
    vectors[0] = 0
    found = Signatures.of([f"{n:02}" for n in range(40)], vectors)
    assert not found.vector[0].any()
    kept = found.vector[1:] / np.sqrt(found.norm[1:, None])
    exact = vectors[1:] / np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    assert np.abs(kept @ kept.T - exact @ exact.T).max() < 0.003


def test_parts_are_merged_by_key_and_the_last_part_counts(tmp_path: Path) -> None:
    """Whatever the order in which they were written; every column goes along."""
    writer = SignatureWriter(tmp_path)
    writer.write("2", some("b", "é", side=2))
    writer.write("1", some("c", "b", "a", side=1))
    found = merge(parts_in(tmp_path), tmp_path / "merged.set")
    assert [found.keys.text(row) for row in range(len(found))] == ["a", "b", "c", "é"]
    assert found.short_side.tolist() == [1, 2, 1, 2]
    assert list(found.groups) == [b"a", b"b", b"c", "é".encode()]
    np.testing.assert_array_equal(found.vector[3], some("é").vector[0])


def test_only_what_is_wanted_is_merged(tmp_path: Path) -> None:
    """By hashes of keys."""
    SignatureWriter(tmp_path).write("1", some("a", "b", "c"))
    only = np.sort(np.array([key_hash(encoded(key)) for key in ("c", "a", "never was there")], np.uint64))
    assert list(merge(parts_in(tmp_path), tmp_path / "merged.set", only).keys) == [b"a", b"c"]


def test_nothing_is_merged_into_nothing(tmp_path: Path) -> None:
    """An empty folder, and a part without items."""
    assert len(merge(parts_in(tmp_path), tmp_path / "merged.set")) == 0
    SignatureWriter(tmp_path).write("1", Signatures.of([], np.empty((0, WIDTH), np.float32)))
    assert len(merge(parts_in(tmp_path), tmp_path / "merged.set")) == 0


def test_a_part_is_replaced_by_one_of_its_name(tmp_path: Path) -> None:
    """As where a video is done again."""
    writer = SignatureWriter(tmp_path)
    writer.write("video", some("v1", "v2", "v3"))
    writer.write("video", some("v1"))
    assert list(merge(parts_in(tmp_path), tmp_path / "merged.set").keys) == [b"v1"]


@pytest.mark.parametrize("left", [0, 4, 30, 200])
def test_a_file_that_was_cut_or_is_of_another_kind_is_an_error_that_names_it(tmp_path: Path, left: int) -> None:
    """Never signatures of something else."""
    SignatureWriter(tmp_path).write("1", some("a", "b"))
    (part,) = parts_in(tmp_path)
    part.write_bytes(part.read_bytes()[:left])
    with pytest.raises(SinkError, match=part.name):
        read_signatures(part)
    part.write_bytes(b"no signatures at all, but long enough to be some")
    with pytest.raises(SinkError, match=part.name):
        read_signatures(part)


def test_vectors_of_different_lengths_do_not_lie_together(tmp_path: Path) -> None:
    """They cannot be compared."""
    writer = SignatureWriter(tmp_path)
    writer.write("1", some("a"))
    writer.write("2", Signatures.of(["b"], np.ones((1, WIDTH + 1), np.float32)))
    with pytest.raises(SinkError, match=r"\[8, 9\] dimensions"):
        merge(parts_in(tmp_path), tmp_path / "merged.set")


def test_rows_of_another_embedder_are_no_signatures(tmp_path: Path) -> None:
    """They would be taken for something else; the folder is not even made."""
    sink = make_sink(f"signatures:{tmp_path / 'new'}", SinkOptions(dimension=512, note='{"embedder": "gist"}'))
    with pytest.raises(ConfigError, match="embedder signature"):
        sink.open()
    assert not (tmp_path / "new").exists()


def test_signatures_that_are_written_again_are_there_once(tmp_path: Path) -> None:
    """By the paths of pictures; a note is that of whoever wrote first."""
    rows = RowBatch(["x", "y"], np.zeros((2, 5 + TAIL), np.float32), [{"path": "/x.jpg", "width": 3, "height": 2}, {}])
    for note in ('{"embedder": "signature"}', '{"embedder": "signature", "collection": "1"}'):
        with make_sink(f"signatures:{tmp_path}", SinkOptions(dimension=5 + TAIL, note=note)) as sink:
            assert sink.look() is not None
            assert sink.write(rows) == WriteResult(2, [])
            assert sink.count() == 2
            assert sink.note == '{"embedder": "signature"}'
    found = merge(parts_in(tmp_path), tmp_path / "merged.set")
    assert list(found.keys) == [b"/x.jpg", b"y"]
    assert found.short_side.tolist() == [2, 0]
