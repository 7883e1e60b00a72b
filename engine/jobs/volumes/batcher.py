"""Micro-batches of patches: pages are cut, patches of all pages are computed together, and come back to their page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

import numpy as np
from PIL import Image

from ....errors import ChildrenFailedError, ItemError, PenstockError
from ....preprocess.pages.first_pass import FirstPass
from ....preprocess.pages.patches import PATCH
from ....preprocess.worker.jax_runtime import on_cpu
from ... import Gathered, Lane
from ...config.volumes import PipelineConfig
from ...core.policies import Retry
from ..common.plan import Plan
from .embedding import PatchEmbedder, page_vector
from .pages import DecodedFrame, PageLook, Patch, PatchResult, UInt8

_logger = logging.getLogger(__name__)

FIRST: Final = "first"
REPROCESS: Final = "reprocess"
"""The two lanes: pages that are looked at for the first time, and those that have been straightened."""


class PatchFunction(Protocol):
    """What is computed of a batch of patches. A plain function will do; threads may call it at once.

    It gets uint8 ``[batch, 512, 512]`` in grey, or, if it has an attribute ``channels = 3``, ``[batch, 512, 512, 3]``
    in colours; always of one size: what is missing is filled up with zeros. It returns an array ``[batch, ...]``, or
    arrays of that kind in a tuple, a list or a dict. A row may depend on its own patch only.
    """

    def __call__(self, patches: UInt8, /) -> Any: ...


class GpuBatcher:
    """The middle of a volume worker.

    Args:
        cfg: sizes and weights.
        function: what is computed of patches; None: the first pass over scanned pages (``preprocess.pages``).
        embedder: what makes their vectors; None: what `cfg` names.

    Attributes:
        lanes: names and weights of the lanes that patches wait in.
    """

    def __init__(
        self, cfg: PipelineConfig, function: PatchFunction | None = None, embedder: PatchEmbedder | None = None
    ) -> None:
        self.lanes: Mapping[str, int] = {FIRST: 1, REPROCESS: cfg.reprocess_weight}
        self._batch = cfg.batch_size
        self._retries = isinstance(cfg.policies["embed"], Retry)
        self._function = function
        self._embedder = PatchEmbedder(cfg) if embedder is None else embedder

    @property
    def plan(self) -> Plan:
        """The embedder, and the pixels it gets."""
        return self._embedder.plan

    @property
    def recipe(self) -> str:
        """What vectors are made by, as text."""
        return self._embedder.recipe

    def open(self) -> None:
        """Load models, compile.

        Raises:
            EmbedderError: the embedder does not work at all.
        """
        if self._function is None:
            with on_cpu():  # where nobody else uses JAX it is set up for us, with its compilation cache
                self._function = cast("PatchFunction", FirstPass(self._batch))
        self._embedder.open()

    def close(self) -> None:
        """Let go of models. May be called twice."""
        self._embedder.close()

    def cut(self, frame: DecodedFrame) -> list[Lane]:
        """The patches of a page, in the lane of its pass."""
        lane = REPROCESS if frame.passes else FIRST
        return [Lane(lane, Patch(frame, index)) for index in range(len(frame.grid))]

    def run(self, patches: list[Patch]) -> list[PatchResult]:
        """Compute one batch of at most `batch_size` patches; one result for each.

        Raises:
            PenstockError: it cannot go on at all; or, of something transient, is to be tried again.
        """
        pixels = [patch.pixels() for patch in patches]
        features = self._rows(pixels)
        again = self._retries and not any(patch.is_last for patch in patches)
        vectors, refused = self._embedder.embed(pixels, attempt=again)
        return [
            PatchResult(error=error)
            if (error := row if isinstance(row, Exception) else refused.get(at)) is not None
            else PatchResult(row, vectors[at])
            for at, row in enumerate(features)
        ]

    def gathered(self, page: Gathered) -> PageLook:
        """A page whose patches have all come back.

        Raises:
            ChildrenFailedError: some of them could not be done.
        """
        frame: DecodedFrame = page.value
        results: list[PatchResult] = page.results
        own = {at: each.error for at, each in zip(page.indices, results, strict=True) if each.error is not None}
        if errors := {**page.errors, **own}:
            at, first = min(errors.items(), key=lambda each: each[0])
            of = len(frame.grid)
            message = f"{len(errors)} of {of} patches failed; the first, {at}: {type(first).__name__}: {first}"
            raise ChildrenFailedError(message) from first
        vectors = [result.vector for result in results if result.vector is not None]
        vector = page_vector(vectors, frame.grid.weights()) if vectors else None
        return PageLook(frame, [result.features for result in results], vector)

    def _rows(self, pixels: Sequence[UInt8]) -> list[Any]:
        """What the patch function makes of each patch, or its error: one that fails costs its neighbours nothing."""
        try:
            return self._call(pixels)
        except Exception as error:
            if isinstance(error, PenstockError) and not isinstance(error, ItemError):
                raise
            if len(pixels) == 1:
                _logger.warning("a patch failed: %s: %s", type(error).__name__, error)
                return [error]
        return [row for one in pixels for row in self._rows([one])]

    def _call(self, pixels: Sequence[UInt8]) -> list[Any]:
        function = self._function
        assert function is not None
        colours = (3,) if getattr(function, "channels", 1) == 3 else ()
        batch = np.zeros((self._batch, PATCH, PATCH, *colours), np.uint8)
        for row, patch in zip(batch, pixels, strict=False):
            row[:] = _as(patch, len(colours) + 2)
        made = function(batch)
        return [_row(made, at) for at in range(len(pixels))]


def _as(patch: UInt8, axes: int) -> UInt8:
    """A patch in grey (2 axes) or in colours (3)."""
    if patch.ndim == axes:
        return patch
    return np.asarray(Image.fromarray(patch).convert("L" if axes == 2 else "RGB"))


def _row(made: Any, at: int) -> Any:
    """A row of whatever a patch function has returned, in memory of its own."""
    if isinstance(made, Mapping):
        return {name: _row(each, at) for name, each in made.items()}
    if isinstance(made, tuple | list):
        return tuple(_row(each, at) for each in cast("Sequence[Any]", made))
    return np.array(made[at])
