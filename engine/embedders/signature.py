"""``signature``: GIST, and behind it what near-duplicates are found by besides: what `penstock dedup` embeds with."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...errors import ConfigError
from ...preprocess.signature import TAIL, tail_of
from .base import (
    NONE_REFUSED,
    ArrayView,
    Embedder,
    Options,
    PixelPreferences,
    Pixels,
    Refusals,
    Runs,
    View,
    digest,
    need_batch,
    no_options,
)
from .gist import Gist

# Raise it when the same pixels begin to give another tail.
_VERSION = 1


class Signature(Embedder):
    """GIST of 64 x 64 pixels, then the PDQ hash, its quality, sharpness and a digest: see `preprocess.signature`."""

    runs: ClassVar[Runs] = "worker"

    def __init__(self) -> None:
        super().__init__("signature", "signature")
        self._gist = Gist()
        self._axis, self._rows = 1, 0

    @property
    def dimension(self) -> int:
        return self._gist.dimension + TAIL

    @property
    def fingerprint(self) -> str:
        return digest("signature", str(_VERSION), self._gist.fingerprint)

    @property
    def wants(self) -> PixelPreferences:
        return self._gist.wants

    def memory(self, spec: Pixels, rows: int) -> int:
        """That of GIST, and the lumas of a batch."""
        return self._gist.memory(spec, rows) + 8 * 4 * rows * self._gist.size**2

    def check(self, spec: Pixels) -> None:
        self._gist.check(spec)
        if spec.size != self._gist.size or spec.dtype != "uint8":
            raise ConfigError(
                f"signature takes uint8 pixels of {self._gist.size} x {self._gist.size}, and would get {spec.dtype} of"
                f" {spec.size} x {spec.size}: leave out --image-size, --dtype and --preset"
            )

    def open(self, spec: Pixels, rows: int) -> None:
        self.check(spec)
        self._axis, self._rows = 1 if spec.layout == "NCHW" else -1, rows
        self._gist.open(spec, rows)

    def embed(self, view: View, rows: int) -> Refusals:
        need_batch(self, view, rows, self._rows)
        vectors = ArrayView(view.pixels, np.empty((self._rows, self._gist.dimension), np.float32))
        self._gist.embed(vectors, rows)
        view.embeddings[:rows, :-TAIL] = vectors.embeddings[:rows]
        view.embeddings[:rows, -TAIL:] = tail_of(view.pixels[:rows], self._axis).packed()
        return NONE_REFUSED

    def close(self) -> None:
        self._gist.close()


def make_signature(rest: str, options: Options) -> Signature:
    """``signature``.

    Raises:
        ConfigError: something follows, or an option was given.
    """
    no_options("signature", options)
    if rest:
        raise ConfigError(f"signature:{rest}: nothing follows the name")
    return Signature()
