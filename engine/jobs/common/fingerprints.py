"""What a job is, in words: what may not change from run to run, and what another run needs to go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ....errors import ConfigError
from ....formatting import CALLED
from ....sinks import parse_uri
from ...config.model import PER_RUN, ServiceConfig
from ...journal import Difference, Status
from ...sources import STDIN, FileSource, is_plain
from .files import files_of
from .kept_sources import MANY, kept_sources
from .output_paths import bulk_folder
from .plan import Plan
from .provenance import recipe_of, version_of

_VERSION = "pixels version"
"""Among the settings of the pixels; as a person reads it in a message."""

_UNSAID = {"token", "job", "update", "accept_changes", "redo", "accept_store"}
"""Settings that are a secret, or are about one run."""


def fingerprints(config: ServiceConfig, plan: Plan, source: FileSource) -> Mapping[str, str]:
    """What may not change from run to run, in words that people can compare."""
    recipe = json.loads(recipe_of(plan))
    lists = any(spec == STDIN or spec.startswith("@") for spec in source.specs)
    return {
        "source": " ".join([*_told(source.specs), *["--null"] * (source.null and lists), *_selection(config)]),
        "preprocess": json.dumps({**recipe["pixels"], _VERSION: version_of(recipe)}, sort_keys=True),
        "embedder": f"{plan.embedder.name} {recipe['model']}",
        "sink": f"{_store(config)} collection {config.collection}"
        + (f" partition {config.partition}" * bool(config.partition)),
    }


def specs_of(source: FileSource) -> Iterator[str]:
    """What the source was given, as it can be named from any folder."""
    return map(_spec, source.specs)


def what_differs(different: Iterable[Difference]) -> str:
    """What differs, in words."""
    return "; ".join(map(_change, different))


def settings_of(config: ServiceConfig, source: FileSource) -> dict[str, Any]:
    """What another run needs to go on, in any folder: the sources, and the settings as they were given. No secrets."""
    given = config.model_dump(mode="json", include=config.model_fields_set - _UNSAID)
    places: dict[str, Any] = {name: _absolute(given[name]) for name in ("metadata", "list_filtered") if given.get(name)}
    if "report" in given:
        places["report"] = [_absolute(path) for path in given["report"]]
    if "embedder" in given:
        places["embedder"] = _embedder(config.embedder)
    return {
        "sources": [_spec(spec) for spec in source.specs] if len(source.specs) <= MANY else [],
        "null": source.null,
        "token": _has_token(config),
        "config": {**given, **places, "to": _store(config)},
    }


def begun_with(found: Status, **given: Any) -> tuple[ServiceConfig, FileSource]:
    """What `settings_of` was made of, to go on with a job. The source is looked at if it has to be read.

    Args:
        found: the job.
        **given: settings for this run (`PER_RUN`), which win over those of the run before.

    Raises:
        ConfigError: the job does not know what it was begun with, a setting is not allowed, or the job needs what is
            not kept: a token, or a list that came on standard input.
        SourceError: the source has to be read and is not there.
    """
    if fixed := sorted(given.keys() - PER_RUN):
        raise ConfigError(f"{fixed[0]}: belongs to what the job was begun with, and a later run may not change it")
    settings = found.settings
    if "config" not in settings:
        raise ConfigError(f"the job in {found.path} ended before it began: start it again with penstock embed")
    sources, reads = settings["sources"] or kept_sources(found.path), bool(given.get("update")) or not found.listed
    if reads and STDIN in sources:
        raise ConfigError(
            f"the job in {found.path} has its list from standard input (-), which cannot be read again: pipe the list"
            " into the command that it was begun with" + (" and add --update" * bool(given.get("update")))
        )
    config = ServiceConfig(**{**settings["config"], **given}, job=Path(found.path))
    if settings["token"] and config.token is None:
        raise ConfigError(
            f"the job in {found.path} was begun with a token for {config.to}, and tokens are not kept: set MILVUS_TOKEN"
            " to it (an API key or user:password) and give the command again"
        )
    return config, files_of(config, sources, null=settings["null"], later=not reads)


def _told(specs: Sequence[str]) -> list[str]:
    """Sources for people, and to be told from others: all of them, or of many the ends and a digest."""
    if len(specs) <= MANY:
        return list(map(_spec, specs))
    digest = blake2b(digest_size=16)
    for spec in map(_spec, specs):
        digest.update(spec.encode("utf-8", "surrogatepass") + b"\0")
    return [_spec(specs[0]), "...", _spec(specs[-1]), f"({len(specs):,} in all, digest {digest.hexdigest()})"]


def _selection(config: ServiceConfig) -> list[str]:
    """What is wanted of folders, where it is not everything."""
    globs = [f"--{name} {glob}" for name in ("include", "exclude") for glob in getattr(config, name)]
    return [*["--follow-links"] * config.follow_links, *globs]


def _spec(spec: str) -> str:
    """A source as it can be named from any folder."""
    if spec == STDIN:
        return spec
    mark = "@" if spec.startswith("@") else ""
    return mark + _absolute(spec.removeprefix(mark))


def _store(config: ServiceConfig) -> str:
    """Where the rows go, as it can be named from any folder, without credentials."""
    to = config.to or ""
    scheme, mark, rest = to.partition("://")
    if mark:
        return f"{scheme}://{rest.rpartition('@')[2]}"
    bulk = "bulk:" if to.startswith("bulk:") else ""
    return bulk + str(Path(to.removeprefix(bulk)).expanduser().absolute())


def _embedder(spec: str) -> str:
    """One whose model is a file names it from any folder."""
    scheme, _, rest = spec.partition(":")
    if scheme != "onnx":
        return spec
    path, mark, options = rest.partition("?")
    return f"onnx:{_absolute(path)}{mark}{options}"


def _absolute(path: str) -> str:
    """One spelling of a path, whether it ends in a slash or not. ``..`` stays: behind a link it means another place."""
    return path if is_plain(path) else str(Path(path).absolute())


def _has_token(config: ServiceConfig) -> bool:
    return bulk_folder(config) is None and bool(parse_uri(config.to or "", _token(config)).token)


def _token(config: ServiceConfig) -> str | None:
    return config.token.get_secret_value() if config.token else None


def _change(change: Difference) -> str:
    """One difference; of pixels only the settings that differ."""
    there, here = change.there or "nothing", change.here or "nothing"
    if change.name == "preprocess" and change.there and change.here:
        before, now = ({_VERSION: version_of({}), **json.loads(said)} for said in (there, here))
        names = [name for name in now if before.get(name) != now[name]]
        there = ", ".join(f"{name} {before.get(name)}" for name in names)
        here = ", ".join(f"{name} {now[name]}" for name in names)
    return f"{CALLED.get(change.name, change.name)} was {there}, and is {here} now"
