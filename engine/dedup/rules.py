"""Rules: when two items are near-duplicates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

from ...errors import ConfigError
from ...preprocess.pdq import INFORMATIVE

EXACT: Final = "exact"
"""The name of the rule that comes before all others: the content is the same."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When two items are near-duplicates. Besides, items whose content is the same are.

    Attributes:
        name: as it is written, and as it stands in the result.
        cosine: least cosine of the two vectors; None: vectors do not matter.
        pdq: most bits in which the two hashes differ; None: hashes do not matter.
        quality: least PDQ quality of both.
    """

    name: str
    cosine: float | None
    pdq: int | None
    quality: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """``default`` (GIST 0.96 and PDQ 100), ``strict`` (PDQ 31, qualities 50) or ``vectors:0.97`` (cosine alone).

        Raises:
            ConfigError: it is none of these, or the cosine is not one from 0.5 to 1.
        """
        name, colon, rest = text.partition(":")
        if text == "default":
            return cls(text, 0.96, 100)
        if text == "strict":
            return cls(text, None, 31, INFORMATIVE)
        if name == "vectors" and colon:
            try:
                cosine = float(rest)
            except ValueError:
                cosine = math.nan
            if 0.5 <= cosine <= 1:
                return cls(f"vectors:{rest}", cosine, None)
            raise ConfigError(f"rule: {text!r}: behind vectors: comes the least cosine, 0.5 to 1, as in vectors:0.97")
        raise ConfigError(f"rule: {text!r}: there are default, strict and vectors:COSINE, as in vectors:0.97")

    @property
    def needs_pictures(self) -> bool:
        """Whether it asks for what is made of pixels, and not only for vectors."""
        return self.pdq is not None
