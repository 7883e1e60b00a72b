"""Publishing a data set: readers see all of it or nothing, of two publishers one wins, and any death can be outlived.

The order: parts that nobody sees; the claim, which one job gets; the parts shown; the manifest, which makes them a data
set; what is left over taken away; the claim. Each step can be done again, by whoever reads the claim.
"""

from __future__ import annotations

import time
from typing import Final

from ...backoff import Backoff
from ...errors import PublishConflictError
from .manifest import CLAIM, EMPTY, MANIFEST, Claim, Manifest, claim_in, manifest_in, parsed
from .place import Hold, Place

_ATTEMPTS: Final = 8
_WAIT: Final = Backoff(first=0.05, longest=2.0)


def publish(place: Place, claim: Claim, hold: Hold) -> None:
    """Claim the place, and finish what is claimed. Repeatable.

    Args:
        place: where.
        claim: what.
        hold: of the job; a process that has lost it shows nothing.

    Raises:
        PublishConflictError: another job has published there, or is about to. Nothing of this one is to be seen.
    """
    hold.check()
    finish(place, _claimed(place, claim), hold)


def _claimed(place: Place, claim: Claim) -> Claim:
    """The claim of this job that lies there now. Where none does although it could not be made, two were at it at once
    (a store may refuse both), or its owner has just finished: it is tried again.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        if place.create(CLAIM, claim.to_bytes()):
            return claim
        if there := claim_in(place):
            if there.job == claim.job:
                return there
            raise conflict(place, there, manifest_in(place))
        time.sleep(_WAIT.delay(attempt))
    raise conflict(place, None, manifest_in(place))


def finish(place: Place, claim: Claim, hold: Hold) -> None:
    """Go on with a claim of this job from wherever it was left.

    Raises:
        PublishConflictError: as for `publish`; the claim is given up.
    """
    data = place.read(MANIFEST)
    before = parsed(place, data)
    if not is_done(claim, before):
        if before is not None and before.publication != claim.was:
            give_up(place, claim)
            raise conflict(place, None, before)
        for part in claim.sealed:
            place.complete(claim.job, part)
        hold.check()
        shown = place.replace(MANIFEST, claim.manifest.to_bytes(), data)
        if not shown and not is_done(claim, manifest_in(place)):  # an answer that was lost is asked for again
            raise conflict(place, None, manifest_in(place))
    place.put(EMPTY, b"")
    place.delete(claim.after)
    place.delete([CLAIM])


def is_done(claim: Claim, manifest: Manifest | None) -> bool:
    """Whether a data set is the one that was claimed."""
    return manifest is not None and manifest.publication == claim.manifest.publication


def give_up(place: Place, claim: Claim) -> None:
    """Undo a claim that has not come to a manifest: no part of it is shown, or lies there to be shown."""
    place.delete(part.name for part in claim.sealed)
    place.forget(claim.job, claim.sealed)
    place.delete_if(CLAIM, claim.to_bytes())


def conflict(place: Place, claim: Claim | None, manifest: Manifest | None) -> PublishConflictError:
    """That another job was there first, and the ways on."""
    if claim is not None:
        return PublishConflictError(
            f"{place.uri}: job {claim.job} (process {claim.pid} on {claim.host}) has been publishing there since"
            f" {claim.created}; if it is dead, run it again and it goes on, or take away what it left (penstock clean)"
        )
    if manifest is not None:
        return PublishConflictError(
            f"{place.uri}: job {manifest.job} has published a complete data set there ({manifest.created});"
            " take another place (--to), or replace it (--overwrite)"
        )
    return PublishConflictError(f"{place.uri}: another job has just published there, or given up; try again")
