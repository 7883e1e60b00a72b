"""Vectors of patches, and of the pages that they cover: by any embedder of the project."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from ....errors import EmbedderError, ItemError
from ...config.volumes import PipelineConfig
from ..common.in_process import LocalPreprocessor, at_home
from ..common.plan import Plan, make_plan
from ..common.provenance import recipe_of
from .pages import UInt8, Vector


class PatchEmbedder:
    """Embeds patches in this process, at the size and with the pixels that the embedder wants.

    Args:
        cfg: names the embedder; of a batch at most `batch_size` patches.
        plan: the embedder and its pixels; None: as `cfg` says.

    Raises:
        ConfigError: a name is not known, or pixels and embedder do not fit.
    """

    def __init__(self, cfg: PipelineConfig, plan: Plan | None = None) -> None:
        self.plan = plan or make_plan(cfg)
        self._pages = cfg.own_fingerprints
        self._rows, self._threads = cfg.batch_size, cfg.compute_threads
        self._local: LocalPreprocessor | None = None
        self._turns = threading.Semaphore(self.plan.embedder.concurrency)

    @property
    def recipe(self) -> str:
        """What the vectors are made by, as text: the embedder, its pixels, and how pages are straightened."""
        return json.dumps({**json.loads(recipe_of(self.plan)), **self._pages})

    def open(self) -> None:
        """Load the model.

        Raises:
            EmbedderError: it does not work at all.
        """
        embedder = self.plan.embedder
        with at_home(embedder):
            embedder.open(self.plan.spec, self._rows)
        self._local = LocalPreprocessor(self.plan.spec, self._rows, embedder, self._threads)

    def embed(
        self, patches: Sequence[UInt8], *, attempt: bool = False
    ) -> tuple[Mapping[int, Vector], Mapping[int, ItemError]]:
        """Embed at most `batch_size` patches.

        Args:
            patches: uint8 ``[512, 512]`` or ``[512, 512, 3]`` each.
            attempt: whether it will be tried again: what is transient is raised then, see `Embedder.attempt`.

        Returns:
            float32 ``[D]`` for each patch that could be, and the errors of the others, by their numbers.

        Raises:
            EmbedderError: it does not work at all.
            EmbedError: of something transient, with `attempt`.
        """
        if self._local is None:
            raise EmbedderError("the embedder of patches is not open")
        slot = self._local.process(patches)
        embedder, rows = self.plan.embedder, [row.position for row in slot.rows]
        refused: dict[int, ItemError] = dict(slot.failures)
        with self._turns, at_home(embedder):
            run = embedder.attempt if attempt else embedder.embed
            for row, error in run(slot.view, len(rows)).items() if rows else ():
                refused[rows[row]] = error
        vectors = {at: slot.view.embeddings[row].copy() for row, at in enumerate(rows) if at not in refused}
        return vectors, refused

    def close(self) -> None:
        """Let go of the model. May be called twice."""
        self._local = None
        self.plan.embedder.close()


def page_vector(vectors: Sequence[Vector], weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Vector:
    """The mean of the vectors of a page's patches.

    Args:
        vectors: float32 ``[D]`` of each patch.
        weights: float64 ``[n]``, how much of the page each stands for; their sum is 1.

    Returns:
        float32 ``[D]``.
    """
    return np.asarray(weights @ np.stack(vectors).astype(np.float64), np.float32)
