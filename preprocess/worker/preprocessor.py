"""Decode and kernel together, in this process: what a worker runs, and what a handful of pictures needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ItemError
from ..decode.decode import Source, check_pillow, decode_into
from ..decode.jpeg import check_decoder
from ..kernel.canvas import Placement, make_canvas, make_params
from ..kernel.kernel import Kernel
from ..limits import over_limit
from ..spec import PreprocessSpec


class Preprocessor:
    """A canvas of `rows` pictures and the kernel over it.

    Load pictures into rows, run the kernel, read the rows that loaded. The pixels of a row depend on its picture and
    the spec only: not on `rows`, its neighbours, or what the row held before.

    Args:
        spec: What to make of the pictures.
        rows: Pictures in a batch, at least 1. Memory is ``rows * (c * c * 4 + bytes of one row)`` with
            ``c = 2 * size + 16``.

    Raises:
        ConfigError: Pillow was told to accept broken files, or the spec's decoder or transform cannot be had.
    """

    def __init__(self, spec: PreprocessSpec, rows: int) -> None:
        check_pillow()
        check_decoder(spec)
        self.spec = spec
        self.rows = rows
        self.kernel = Kernel(spec, rows)
        self._canvas = make_canvas(spec, rows)
        self._params = make_params(spec, rows)
        self._idle = self._params[0].copy()

    def load(self, row: int, source: Source | ItemError) -> Placement:
        """Decode one picture into its row. Distinct rows may be loaded by several threads at once.

        Args:
            row: 0..rows-1.
            source: See `decode.Source`; an error is raised.

        Raises:
            ItemError: The picture cannot be had; the row is then harmless, and its pixels mean nothing.
        """
        self._params[row] = self._idle
        if isinstance(source, ItemError):
            raise source
        refusal = over_limit(source, self.spec)
        if refusal:
            raise refusal
        placement = decode_into(source, self.spec, self._canvas[row])
        self._params[row] = placement.params
        return placement

    def warm(self) -> Iterator[None]:
        """Compile the kernel's programs, one a step. Else each is compiled when first needed, and a batch waits."""
        for number in range(self.kernel.classes):
            self.kernel.compile(number, self._canvas, self._params)
            yield

    def run(self, out: npt.NDArray[Any], rows: Sequence[int]) -> None:
        """Run the kernel and copy rows out, in the order asked for and without gaps.

        No `load` may run at the same time: the kernel reads the canvas in place.

        Args:
            out: At least ``[len(rows), *pixel_shape]`` of the spec's dtype; rows beyond are left alone.
            rows: Which rows, each loaded before.

        Raises:
            ValueError: `out` has another shape or dtype.
        """
        pixels = np.asarray(self.kernel(self._canvas, self._params, rows))
        if out.shape[1:] != pixels.shape[1:] or out.dtype != pixels.dtype:
            raise ValueError(f"out is {out.dtype}{out.shape}; rows are {pixels.dtype}{pixels.shape[1:]}")
        if list(rows) == list(range(len(rows))):
            np.copyto(out[: len(rows)], pixels[: len(rows)])
            return
        for target, row in enumerate(rows):
            out[target] = pixels[row]
