"""An embedder for penstock: how much of each colour a picture has, as a joint histogram of red, green and blue.

::

    penstock embed ~/Pictures --to photos.db --embedder colours:4

``colours:N`` divides each channel into N parts, so a vector has N x N x N floats, of length 1. It runs in the workers,
beside the pixels, and needs NumPy only. Two pictures are near where their colours are, wherever in the picture.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from penstock.engine.embedders import Embedder, PixelPreferences, Pixels, Refusals, Runs, View
from penstock.engine.embedders.base import NONE_REFUSED, Options, digest, need_batch, no_options
from penstock.errors import ConfigError, EmbedderError

_VERSION = "1"
"""To be changed with whatever changes the vectors: jobs and collections keep it."""


class Colours(Embedder):
    """Histograms of colours.

    Args:
        parts: of each channel, 2 to 8.
    """

    runs: ClassVar[Runs] = "worker"

    def __init__(self, parts: int) -> None:
        super().__init__("colours", f"colours:{parts}")
        self._parts, self._rows, self._axis = parts, 0, 0

    @property
    def dimension(self) -> int:
        return self._parts**3

    @property
    def fingerprint(self) -> str:
        return digest(self.spec, _VERSION)

    @property
    def wants(self) -> PixelPreferences:
        return PixelPreferences(size=64, squash=True, dtype="uint8")

    def memory(self, spec: Pixels, rows: int) -> int:
        del rows  # one picture at a time
        return 16 * int(np.prod(spec.pixel_shape()))

    def check(self, spec: Pixels) -> None:
        if spec.pixel_dtype() != np.uint8:
            raise ConfigError(f"{self.name}: it counts whole bytes: use --dtype uint8")

    def open(self, spec: Pixels, rows: int) -> None:
        self.check(spec)
        self._rows, self._axis = rows, 0 if spec.pixel_shape()[0] == 3 else 2

    def embed(self, view: View, rows: int) -> Refusals:
        if not self._rows:
            raise EmbedderError(f"{self.name}: embed() before open()")
        need_batch(self, view, rows, self._rows)
        for row in range(rows):
            red, green, blue = np.moveaxis(view.pixels[row], self._axis, 0).astype(np.intp) * self._parts // 256
            counts = np.bincount(((red * self._parts + green) * self._parts + blue).ravel(), minlength=self.dimension)
            view.embeddings[row] = counts / np.linalg.norm(counts)
        return NONE_REFUSED

    def close(self) -> None:
        self._rows = 0


def make(rest: str, options: Options) -> Colours:
    """What the entry point names: from ``colours:N``.

    Raises:
        ConfigError: N is no number of parts, or there are options.
    """
    no_options("colours", options)
    if rest not in {"", *map(str, range(2, 9))}:
        raise ConfigError(f"embedder colours: write colours:N with N from 2 to 8, not {rest!r}")
    return Colours(int(rest or 4))
