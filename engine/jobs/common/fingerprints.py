"""What a job is, in words: what may not change from run to run, and what another run needs to go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ....errors import ConfigError
from ....formatting import CALLED
from ...config.model import ServiceConfig
from ...config.stores import with_settings
from ...config.videos import VideoConfig
from ...journal import Difference, Status
from ...sources import MANY, STDIN, Source, anchored
from .kept_sources import kept_sources
from .plan import Plan
from .provenance import recipe_of, version_of
from .sink_factory import job_sink
from .source_factory import make_source

_VERSION = "pixels version"
"""Among the settings of the pixels; as a person reads it in a message."""

_BY_SOURCE = {model.kind: model for model in (ServiceConfig, VideoConfig)}
"""Configurations of jobs that are a source and settings, by what they are about."""

_UNSAID = {"token", "job", "update", "accept_changes", "redo", "accept_store"}
"""Settings that are a secret, or are about one run."""

_PATHS = ("metadata", "list_filtered", "work", "cookies", "html")
"""Settings that are a path."""


def fingerprints(config: ServiceConfig, plan: Plan, source: Source) -> Mapping[str, str]:
    """What may not change from run to run, in words that people can compare."""
    recipe = json.loads(recipe_of(plan))
    return {
        "source": source.fingerprint(),
        "preprocess": json.dumps({**recipe["pixels"], _VERSION: version_of(recipe)}, sort_keys=True),
        "embedder": f"{plan.embedder.name} {recipe['model']}",
        "sink": job_sink(config).fingerprint,
        **config.own_fingerprints,
    }


def what_differs(different: Iterable[Difference]) -> str:
    """What differs, in words."""
    return "; ".join(map(_change, different))


def settings_of(config: ServiceConfig, source: Source) -> dict[str, Any]:
    """What another run needs to go on, in any folder: the sources, and the settings as they were given. No secrets."""
    given = config.model_dump(mode="json", include=config.model_fields_set - _UNSAID)
    places: dict[str, Any] = {name: anchored(given[name]) for name in _PATHS if given.get(name)}
    if "report" in given:
        places["report"] = [anchored(path) for path in given["report"]]
    places |= {name: _model(given[name]) for name in ("embedder", "detector") if given.get(name)}
    sink = job_sink(config)
    stores = [with_settings(each.uri, store.own) for each, store in zip(sink.members, config.stores, strict=True)]
    return {
        **({"kind": config.kind} if config.kind != ServiceConfig.kind else {}),
        "sources": _kept_specs(source),
        "null": source.null,
        "token": sink.has_secret,
        "config": {**given, **places, "to": stores if len(stores) > 1 else stores[0]},
    }


def is_from_python(settings: Mapping[str, Any]) -> bool:
    """Whether a job's pictures were handed over by a Python program, which alone can go on with it."""
    return settings.get("sources", []) is None


def kind_of(settings: Mapping[str, Any]) -> str:
    """What a job is about; see `ServiceConfig.kind`."""
    return str(settings.get("kind", ServiceConfig.kind))


def is_by_source(settings: Mapping[str, Any]) -> bool:
    """Whether a job is a source and settings, from which `begun_with` goes on."""
    return kind_of(settings) in _BY_SOURCE


def specs_of(found: Status) -> list[str]:
    """What the user named as the job's sources."""
    return [*(found.settings["sources"] or kept_sources(found.path))]


def begun_with(found: Status, **given: Any) -> tuple[ServiceConfig, Source]:
    """What `settings_of` was made of, to go on with a job. The source is looked at if it has to be read.

    Args:
        found: the job.
        **given: settings for this run (`ServiceConfig.per_run`), which win over those of the run before.

    Raises:
        ConfigError: the job does not know what it was begun with, a setting is not allowed, or the job needs what is
            not kept: a token, or a list that came on standard input.
        SourceError: the source has to be read and is not there.
    """
    settings = found.settings
    model = _BY_SOURCE[kind_of(settings)]
    if others := sorted(given.keys() - model.model_fields.keys()):
        raise ConfigError(f"{others[0]}: the job in {found.path} is of a kind that has no such setting")
    if fixed := sorted(given.keys() - model.per_run):
        raise ConfigError(f"{fixed[0]}: belongs to what the job was begun with, and a later run may not change it")
    if "config" not in settings:
        raise ConfigError(f"the job in {found.path} ended before it began: start it again as it was begun")
    if is_from_python(settings):
        raise ConfigError(
            f"the job in {found.path} is about pictures that a Python program has: let it call embed_images as before"
        )
    sources, reads = specs_of(found), bool(given.get("update")) or not found.listed
    if reads and STDIN in sources:
        raise ConfigError(
            f"the job in {found.path} has its list from standard input (-), which cannot be read again: pipe the list"
            " into the command that it was begun with" + (" and add --update" * bool(given.get("update")))
        )
    config = model(**{**settings["config"], **given}, job=Path(found.path))
    if settings["token"] and config.token is None:
        raise ConfigError(
            f"the job in {found.path} was begun with a token for {config.shown_to}, and tokens are not kept: set"
            " MILVUS_TOKEN to it (an API key or user:password) and give the command again"
        )
    return config, make_source(config, sources, null=settings["null"], later=not reads)


def _kept_specs(source: Source) -> list[str] | None:
    """What makes the source again: none of many, which are kept in a file; None where nothing can."""
    if not source.specs:
        return None
    return [*source.portable_specs()] if len(source.specs) <= MANY else []


def _model(spec: str) -> str:
    """One whose model is a file names it from any folder."""
    scheme, _, rest = spec.partition(":")
    if scheme != "onnx":
        return spec
    path, mark, options = rest.partition("?")
    return f"onnx:{anchored(path)}{mark}{options}"


def _change(change: Difference) -> str:
    """One difference; of pixels only the settings that differ."""
    there, here = change.there or "nothing", change.here or "nothing"
    if change.name == "preprocess" and change.there and change.here:
        before, now = ({_VERSION: version_of({}), **json.loads(said)} for said in (there, here))
        names = [name for name in now if before.get(name) != now[name]]
        there = ", ".join(f"{name} {before.get(name)}" for name in names)
        here = ", ".join(f"{name} {now[name]}" for name in names)
    return f"{CALLED.get(change.name, change.name)} was {there}, and is {here} now"
