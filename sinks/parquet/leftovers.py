"""What dead publishers leave in a place, and taking it away: job by job, and never that of a live one."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final

from .manifest import About, claim_in, manifest_in
from .place import STAGING, Hold, Place, Stored
from .publish import finish, give_up, is_done

_PART: Final = re.compile(r"part-([0-9a-f]{32})-\d+\.parquet")


@dataclass(frozen=True, slots=True)
class Leftover:
    """What one job has in a place besides a published data set."""

    job: str
    is_live: bool
    """Whether a process is at it now."""
    keeps_books: bool
    """Whether it can go on with it."""
    has_claim: bool
    """Whether it keeps others from publishing."""
    files: int
    nbytes: int
    unfinished: int
    """Parts that the store keeps and does not show, as open uploads."""


def leftovers(place: Place) -> list[Leftover]:
    """Those of every job, in order of ids. Changes nothing.

    Raises:
        SinkError: the place cannot be read.
    """
    claim, hidden, shown = claim_in(place), place.unfinished(), _shown(place)
    files, nbytes = Counter[str](), Counter[str]()
    for stored in place.stored():
        if job := _owner(stored, shown):
            files[job] += 1
            nbytes[job] += stored.nbytes
    jobs = {*files, *hidden, *([claim.job] if claim else [])}
    return [
        Leftover(
            job,
            is_live=place.is_live(job),
            keeps_books=(about := About.of(place, job)) is not None and about.keeps_books,
            has_claim=claim is not None and claim.job == job,
            files=files[job],
            nbytes=nbytes[job],
            unfinished=hidden.get(job, 0),
        )
        for job in sorted(jobs)
    ]


def sweep(place: Place, job: str) -> bool:
    """Take away what a dead job has left; a publication that has come to its manifest is finished instead.

    Returns:
        False where the job lives; nothing was touched then.
    """
    hold = place.take(job)
    if hold is None:
        return False
    try:
        undo(place, job, hold)
    finally:
        hold.close()
    return True


def undo(place: Place, job: str, hold: Hold) -> None:
    """Take away all that a job has in a place and that is not published, its claim included."""
    claim = claim_in(place)
    if claim is not None and claim.job == job:
        if is_done(claim, manifest_in(place)):
            finish(place, claim, hold)
        else:
            give_up(place, claim)
    shown = _shown(place)
    place.delete(each.name for each in place.stored() if _owner(each, shown) == job)
    place.sweep(job)


def _shown(place: Place) -> frozenset[str]:
    manifest = manifest_in(place)
    return frozenset(part.name for part in manifest.parts) if manifest else frozenset()


def _owner(stored: Stored, shown: frozenset[str]) -> str:
    """Whose leftover something is; empty where it is none."""
    if stored.name.startswith(STAGING):
        return stored.name.split("/")[1]
    match = _PART.fullmatch(stored.name)
    return match[1] if match and stored.name not in shown else ""
