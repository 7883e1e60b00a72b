"""What a job is about to publish: parts made of its rows, beside those of its own that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import StoreChangedError
from .manifest import ABOUT, Claim, Manifest, manifest_in
from .place import Place, staging
from .staged import SEALED, PartMaker, Positions, live_in, next_number
from .table import RECIPE, dimension_of, fields_of


def prepared(
    place: Place,
    job: str,
    names: Sequence[str],
    base: Manifest | None,
    replaces: str | None,
    schema: Any,
    part_bytes: int,
    positions: Positions | None = None,
) -> Claim:
    """Make the parts, and say what is to be claimed.

    Args:
        place: where.
        job: whose.
        names: of the files with the rows that are to be shown.
        base: what the job has published before.
        replaces: the publication of another job that it is to take the place of.
        schema: of the parts.
        part_bytes: the most of a part, before compression.
        positions: of the rows that are to be shown; None: all, as they were written.

    Raises:
        StoreChangedError: rows that are to be shown are not there.
    """
    own = base.parts if base else []
    inputs = [*(part.name for part in own), *names]
    live = live_in(place, inputs) if own else []
    stale = {
        part.name
        for part, mask in zip(own, live, strict=False)
        if not mask.all() or not (positions is None or positions.hold(place, part.name))
    }
    again = [name for name in inputs if name in stale or name in names]
    made = PartMaker(place, job, again, schema, part_bytes, next_number(job, own), positions).make()
    manifest = Manifest(
        job=job,
        dimension=dimension_of(schema),
        recipe=schema.metadata[RECIPE.encode()].decode(),
        schema={name: str(schema.field(name).type) for name in schema.names},
        fields=fields_of(schema),
        parts=[*(part for part in own if part.name not in stale), *(part.shown for part in made)],
    )
    if positions is not None and manifest.rows != (wanted := len(positions.by_key)):
        raise StoreChangedError(
            f"{place.uri}: {manifest.rows:,} of the {wanted:,} rows that were written are there, the others have been"
            " taken away. Do them again: begin a new job (--job) for them"
        )
    was = base or manifest_in(place)
    replaced = [part.name for part in was.parts if part not in manifest.parts] if was else []
    leftover = [*names, staging(job, SEALED), staging(job, ABOUT)]
    return Claim(
        manifest, [part.sealed for part in made], base.publication if base else replaces, [*replaced, *leftover]
    )
