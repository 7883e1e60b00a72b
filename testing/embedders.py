"""What every embedder must hold: tests to subclass, for your own kind of embedder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ..engine.embedders import ArrayView, Embedder, Pixels, nonfinite_rows, parse_embedder
from ..errors import ConfigError, EmbedderError

ROWS = 5
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PlainPixels:
    """Plain pixels, as a preprocessing specification describes them."""

    size: int = 32
    dtype: str = "uint8"
    layout: str = "NCHW"
    mean: Triple | None = None
    std: Triple | None = None
    transform: str | None = None

    def pixel_shape(self) -> tuple[int, ...]:
        return (3, self.size, self.size) if self.layout == "NCHW" else (self.size, self.size, 3)

    def pixel_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)


def pictures(spec: Pixels, count: int = ROWS, seed: int = 0) -> NDArray[Any]:
    """`count` different noise pictures ``[count, *pixel_shape]``."""
    values = np.random.default_rng(seed).integers(0, 256, (count, *spec.pixel_shape()))
    return values.astype(spec.pixel_dtype())


def batch(embedder: Embedder, pixels: NDArray[Any], fill: float = 0.0) -> ArrayView:
    """A batch ``[rows, *pixel_shape]`` for an opened embedder, with room for its vectors."""
    return ArrayView(pixels, np.full((len(pixels), embedder.dimension), fill, np.float32))


class EmbedderContract(ABC):
    """What holds for every embedder. Subclasses say how to make one and which pixels it takes.

    Attributes:
        pixels: what it takes.
        bad: changes of `pixels` that it must refuse, each with words of the refusal (a regular expression).
    """

    pixels: PlainPixels = PlainPixels()
    bad: tuple[tuple[dict[str, Any], str], ...] = ()

    @pytest.fixture
    def spec(self) -> PlainPixels:
        return self.pixels

    @pytest.fixture
    @abstractmethod
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
        """The spec string of the embedder under test, and that of one with other vectors."""

    @pytest.fixture
    def opened(self, made: tuple[str, str], spec: PlainPixels) -> Any:
        with parse_embedder(made[0]) as embedder:
            embedder.open(spec, ROWS)
            yield embedder

    def test_its_spec_makes_it_again(self, made: tuple[str, str]) -> None:
        """The spec string is all a worker gets, so it must make an equal embedder."""
        first = parse_embedder(made[0])
        again = parse_embedder(first.spec)
        assert (again.spec, again.name, again.fingerprint) == (first.spec, first.name, first.fingerprint)

    def test_fingerprint_changes_with_what_makes_the_vectors(self, made: tuple[str, str]) -> None:
        """Two embedders with different vectors have different fingerprints, and it is known before open()."""
        assert parse_embedder(made[0]).fingerprint != parse_embedder(made[1]).fingerprint

    def test_dimension_is_known_after_open(self, opened: Embedder) -> None:
        """An opened embedder says how many floats a row has."""
        assert opened.dimension > 0

    def test_fills_its_rows_with_different_finite_vectors(self, opened: Embedder, spec: PlainPixels) -> None:
        """Different pictures get different finite vectors."""
        view = batch(opened, pictures(spec))
        opened.embed(view, ROWS)
        assert nonfinite_rows(view.embeddings) == []
        assert len(np.unique(view.embeddings, axis=0)) == ROWS

    def test_is_deterministic(self, opened: Embedder, spec: PlainPixels) -> None:
        """The same batch twice gives the same bits."""
        first, second = batch(opened, pictures(spec)), batch(opened, pictures(spec))
        opened.embed(first, ROWS)
        opened.embed(second, ROWS)
        np.testing.assert_array_equal(first.embeddings, second.embeddings)

    def test_leaves_rows_beyond_the_last_untouched(self, opened: Embedder, spec: PlainPixels) -> None:
        """Only the rows asked for are written, and pixels never are, for every row count."""
        pixels = pictures(spec)
        for rows in range(ROWS + 1):
            view = batch(opened, pixels.copy(), fill=-7)
            opened.embed(view, rows)
            assert (view.embeddings[rows:] == -7).all()
            assert not (view.embeddings[:rows] == -7).all(axis=1).any()
            np.testing.assert_array_equal(view.pixels, pixels)

    def test_a_picture_has_one_vector_whatever_its_neighbours(self, opened: Embedder, spec: PlainPixels) -> None:
        """A picture's vector does not depend on its row, the row count, or the pictures around it."""
        alone = batch(opened, pictures(spec))
        opened.embed(alone, ROWS)
        for rows in range(1, ROWS + 1):
            mixed = batch(opened, pictures(spec, seed=rows))
            mixed.pixels[rows - 1] = alone.pixels[2]
            opened.embed(mixed, rows)
            np.testing.assert_allclose(mixed.embeddings[rows - 1], alone.embeddings[2], rtol=1e-6, atol=1e-6)

    def test_serves_capacity_one(self, made: tuple[str, str], opened: Embedder, spec: PlainPixels) -> None:
        """Opened for single pictures it gives the vectors it gives in batches."""
        many = batch(opened, pictures(spec))
        opened.embed(many, ROWS)
        with parse_embedder(made[0]) as single:
            single.open(spec, 1)
            view = batch(single, pictures(spec)[:1])
            single.embed(view, 1)
        np.testing.assert_allclose(view.embeddings[0], many.embeddings[0], rtol=1e-5, atol=1e-5)

    def test_reads_and_writes_a_strided_slot_in_place(self, opened: Embedder, spec: PlainPixels) -> None:
        """A view into one block of bytes, as a slot of a ring is, works like private arrays."""
        private = batch(opened, pictures(spec))
        opened.embed(private, ROWS)
        block = np.zeros(private.pixels.nbytes + private.embeddings.nbytes + 128, np.uint8)
        start = -block.ctypes.data % 64
        pixels = block[start : start + private.pixels.nbytes].view(spec.pixel_dtype()).reshape(private.pixels.shape)
        begin = start + (private.pixels.nbytes + 63) // 64 * 64
        vectors = block[begin : begin + private.embeddings.nbytes].view(np.float32).reshape(private.embeddings.shape)
        pixels[:] = private.pixels
        opened.embed(ArrayView(pixels, vectors), ROWS)
        np.testing.assert_allclose(vectors, private.embeddings, rtol=1e-6, atol=1e-6)

    def test_refuses_a_view_it_was_not_opened_for(self, opened: Embedder, spec: PlainPixels) -> None:
        """Another capacity would compile again, another width would cut vectors: both are refused."""
        with pytest.raises(EmbedderError, match="opened for batches of 5"):
            opened.embed(batch(opened, pictures(spec, ROWS + 1)), ROWS)
        with pytest.raises(EmbedderError, match="opened for batches of 5"):
            opened.embed(batch(opened, pictures(spec)), ROWS + 1)
        with pytest.raises(EmbedderError, match="has room for"):
            opened.embed(ArrayView(pictures(spec), np.zeros((ROWS, opened.dimension + 1), np.float32)), ROWS)

    def test_embed_before_open_and_after_close_is_refused(self, made: tuple[str, str], spec: PlainPixels) -> None:
        """An embedder that is not open says so instead of failing somewhere inside."""
        embedder = parse_embedder(made[0])
        view = ArrayView(pictures(spec), np.zeros((ROWS, 4), np.float32))
        with pytest.raises(EmbedderError, match=r"before open|before it is opened"):
            embedder.embed(view, 1)
        embedder.open(spec, ROWS)
        embedder.close()
        embedder.close()
        with pytest.raises(EmbedderError, match=r"before open"):
            embedder.embed(view, 1)

    def test_check_accepts_what_it_wants_and_refuses_the_rest_by_name(
        self, made: tuple[str, str], spec: PlainPixels
    ) -> None:
        """Pixels that fit pass; each that does not is refused with the setting to change."""
        embedder = parse_embedder(made[0])
        embedder.check(spec)
        for changes, message in self.bad:
            with pytest.raises(ConfigError, match=message):
                embedder.check(replace(spec, **changes))

    def test_wants_are_pixels_that_fit(self, made: tuple[str, str], spec: PlainPixels) -> None:
        """What an embedder wants, it accepts."""
        embedder = parse_embedder(made[0])
        wants = embedder.wants
        wanted = PlainPixels(wants.size or spec.size, wants.dtype or spec.dtype, wants.layout or spec.layout)
        embedder.check(wanted)
