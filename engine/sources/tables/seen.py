"""Which keys have been met, at eight bytes each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.int64]


class Seen:
    """Keys by their hashes, in sorted runs that are merged as they grow: at most one for each power of two.

    Two of 10^8 keys have the same hash with a probability of 0.0003.
    """

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def take(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Which of these have been met, before or earlier among them; from now on all have.

        Args:
            keys: some thousands, better than one.

        Returns:
            ``[n]``, in their order.
        """
        hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
        run, first, place = np.unique(hashes, return_index=True, return_inverse=True)
        met = np.zeros(len(run), np.bool_)
        for each in self._runs:
            met |= each[np.minimum(np.searchsorted(each, run), len(each) - 1)] == run
        repeated = met[place]
        repeated[np.setdiff1d(np.arange(len(keys)), first)] = True
        self._add(run[~met])
        return repeated

    def _add(self, run: Hashes) -> None:
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort()
        if len(run):
            self._runs.append(run)
