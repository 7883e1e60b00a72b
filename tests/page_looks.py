"""Pages looked at as the volume worker does, but one at a time."""

from __future__ import annotations

from functools import cache

from penstock.preprocess.pages.first_pass import FirstPass
from penstock.preprocess.pages.patches import PatchGrid, UInt8
from penstock.preprocess.pages.summary import Inside, PageSummary, summarise


@cache
def first_pass() -> FirstPass:
    """One for all tests of a process: it is compiled once."""
    return FirstPass(batch=4)


def look(page: UInt8, inside: Inside | None = None) -> PageSummary:
    """The summary of a page, uint8 ``[h, w]`` or ``[h, w, 3]``."""
    grid = PatchGrid(page.shape[1], page.shape[0])
    return summarise(first_pass().of_page(page, grid), grid, inside)
