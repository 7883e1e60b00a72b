"""What a collection's vectors are made by, kept with the collection: a search repeats it, another recipe is refused.

Vectors of another model, or of pixels made otherwise, have distances that mean nothing; nobody would notice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ....errors import CollectionMismatchError
from ....preprocess import PIXELS_VERSION, PreprocessSpec
from ...embedders import parse_embedder
from .plan import Plan

_PIXELS = (
    "size",
    "resize",
    "interpolation",
    "mean",
    "std",
    "dtype",
    "layout",
    "background",
    "value_range",
    "cmyk",
    "crop_rounding",
    "transform",
)
"""What of a specification changes the pixels. Limits and the choice of a decoder do not."""


def recipe_of(plan: Plan) -> str:
    """JSON text: the embedder, its fingerprint, the pixels it gets and the version of what makes them."""
    spec = plan.spec.to_json()
    return json.dumps(
        {
            "embedder": plan.embedder.spec,
            "model": plan.embedder.fingerprint,
            "pixels": {name: spec[name] for name in _PIXELS},
            "pixels_version": PIXELS_VERSION,
        }
    )


def plan_of(recipe: str, plan: Plan) -> Plan:
    """The plan that a collection was made with; what the recipe does not say is as in ``plan``.

    Raises:
        ConfigError: its embedder cannot be had here.
    """
    if not recipe:
        return plan
    said = json.loads(recipe)
    spec = PreprocessSpec.from_json({**plan.spec.to_json(), **said["pixels"]})
    return Plan(parse_embedder(said["embedder"]), spec)


def check_recipe(recipe: str, plan: Plan, collection: str) -> None:
    """Refuse vectors made by other settings. A collection that does not say how it was made is taken as it is.

    Raises:
        CollectionMismatchError: the collection was made by another recipe; the message says what differs.
    """
    if not recipe:
        return
    there, here = json.loads(recipe), json.loads(recipe_of(plan))
    wrong = _differences(there, here)
    if not wrong:
        return
    raise CollectionMismatchError(
        f"collection {collection!r} holds vectors made otherwise: {'; '.join(wrong)}. Vectors of different making "
        "cannot be compared: choose another collection (--collection), or the settings it was made with"
    )


def check_version(recipe: str, collection: str, *, accepted: bool) -> None:
    """Refuse to add to vectors of another version of the pixels, unless that is accepted.

    Raises:
        CollectionMismatchError: it is not; the message says the ways on.
    """
    other = other_version(recipe)
    if other and not accepted:
        raise CollectionMismatchError(
            f"collection {collection!r} holds {other}: some pictures would get other vectors than those there. Take a"
            " new collection (--collection), make this one anew (--overwrite), or add to it with --accept-changes:"
            " what is written stays as it is"
        )


def other_version(recipe: str) -> str | None:
    """In words, that the vectors of a collection are of another version of the pixels; None if they are not."""
    there = version_of(json.loads(recipe)) if recipe else PIXELS_VERSION
    if there == PIXELS_VERSION:
        return None
    return f"version {there} of the pixels, and version {PIXELS_VERSION} is made now (docs/usage.md says what differs)"


def version_of(recipe: Mapping[str, Any]) -> int:
    """The version of the pixels. A recipe that says none is of the time before there was a second one."""
    return int(recipe.get("pixels_version", 1))


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    wrong: list[str] = []
    # Only the fingerprint decides: the same model may be had from another host, or be spelled otherwise.
    if there["model"] != here["model"]:
        spelled = f"embedder {there['embedder']} there, {here['embedder']} here"
        same = there["embedder"] == here["embedder"]
        wrong.append(f"another version of the embedder {here['embedder']}" if same else spelled)
    for name, value in here["pixels"].items():
        if there["pixels"].get(name) != value:
            wrong.append(f"{name} {there['pixels'].get(name)} there, {value} here")
    return wrong
