"""How long to wait before the next attempt: a random time whose bound doubles."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits with jitter, so that many who failed together do not come back in step.

    By default it is the "full jitter" of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015,
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Attributes:
        first: seconds that the first wait takes at most.
        longest: seconds that any wait takes at most.
        least: share of the bound (0..1) that a wait takes at least.
    """

    first: float
    longest: float
    least: float = 0.0

    def delay(self, failed: int, draw: random.Random | None = None) -> float:
        """Seconds to wait after so many attempts (from 1 on) have failed.

        Args:
            failed: attempts so far.
            draw: where the randomness comes from; None: the process' own.
        """
        bound = min(self.first * 2.0 ** min(failed - 1, 64), self.longest)  # more would leave the range of floats
        return (draw or random).uniform(self.least * bound, bound)
