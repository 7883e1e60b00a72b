"""``penstock status``: how far a job is, for people and for machines."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import ConfigError
from ...formatting import CALLED, count, duration, plural, printable, rate
from ..config.volumes import PipelineConfig
from .exit_status import OK, say

if TYPE_CHECKING:
    from ..jobs.volumes.standing import Standing
    from ..journal import Status

LETTERS = "dead-letters.jsonl"

_EXAMPLES = """\b
Examples:
  penstock embed ~/Pictures --to photos.db --job photos-job
  penstock status photos-job
  watch penstock status photos-job
  penstock status photos-job --json | jq .counts.remaining"""

_COUNTS = ("written", "filtered", "dead", "remaining", "total")

_NAMED = 5
"""Volumes that are named."""

_FIRST = ("size", "resize", "interpolation", "mean", "std", "dtype", "layout")
"""What people ask of pixels, before the rest."""

job_folder = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.command(epilog=_EXAMPLES, short_help="How far a job is.")
@job_folder
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(folder: Path, as_json: bool) -> int:
    """What became of each entry of a job's source; also while it runs: how fast, how long to go, and how long ago the
    last of them was recorded.
    """
    from ..jobs.common.dead_letters import errors_of
    from ..journal import read_status

    need_job(folder)
    found = read_status(folder, dead=True)
    errors = errors_of(folder / LETTERS, found.dead)
    pace, volumes = _pace(found, time.time()), _volumes(found)
    if as_json:
        say(json.dumps(_as_json(found, errors, pace, volumes), indent=2))
    else:
        say(_as_text(found, errors, pace, volumes))
    return OK


def _volumes(found: Status) -> Standing | None:
    """How far the volumes of a job on them are; None of other jobs."""
    from ..jobs.common.fingerprints import kind_of

    if kind_of(found.settings) != PipelineConfig.kind or not found.listed:
        return None
    from ..jobs.volumes.standing import standing_of

    return standing_of(found)


def need_job(folder: Path) -> None:
    """Refuse a folder without books.

    Raises:
        ConfigError: it is none of a job.
    """
    if not (folder / "job.json").is_file():
        raise ConfigError(f"{folder} is no job folder: penstock embed ... --job {folder} makes one")


def listed_errors(errors: Counter[str]) -> str:
    """``ReadError 2, DecodeError 1``, the most frequent first."""
    return ", ".join(f"{error} {count(number)}" for error, number in errors.most_common())


def _pace(found: Status, now: float) -> dict[str, float | None]:
    """Of a running job: entries a second since its run began, seconds to go, and seconds since the last record."""
    started = next((event for event in reversed(found.events) if event["event"] == "started"), None)
    if found.owner is None or started is None or found.recorded is None:
        return {}
    began, counts = datetime.fromisoformat(started["time"]).timestamp(), found.counts
    done = counts.total - counts.remaining - started["done"]
    per_second = done / (now - began) if done > 0 and now > began else 0.0
    return {
        "entries_per_second": per_second,
        "eta_seconds": counts.remaining / per_second if per_second else None,
        "seconds_since_record": max(0.0, now - found.recorded),
    }


def _as_json(
    found: Status, errors: Counter[str], pace: dict[str, float | None], volumes: Standing | None
) -> dict[str, Any]:
    return {
        "job": found.job,
        "created": found.created,
        "finished": found.finished,
        "running": found.owner is not None,
        "counts": {name: getattr(found.counts, name) for name in _COUNTS},
        **pace,
        **({} if volumes is None else {"volumes": asdict(volumes)}),
        "acknowledged": _ahead(found),
        "errors": dict(errors),
        "fingerprints": dict(found.fingerprints),
    }


def _as_text(found: Status, errors: Counter[str], pace: dict[str, float | None], volumes: Standing | None) -> str:
    from ..journal import held_by_orphan

    if found.owner is not None:
        state = f"running (pid {found.owner.pid})"
    elif found.orphan:
        state = f"not running, but {held_by_orphan(found.orphan)}"
    elif not found.listed:
        state = "not begun: its source is not listed yet"
    else:
        finished = found.finished and not (volumes and volumes.unpublished)
        state = "finished" if finished else f"to go on: {way_on(found)}"
    lines = [f"job {found.job} of {found.created}: {state}"]
    lines += [f"  {name:<10} {count(getattr(found.counts, name)):>12}" for name in _COUNTS]
    lines += [f"  {count(rows)} of the remaining are in {store} already" for store, rows in _ahead(found).items()]
    lines += _volume_lines(volumes)
    if pace:
        lines.append(f"  {_paced(pace)}")
    if found.counts.dead:
        lines.append(f"dead letters: {listed_errors(errors)}")
        lines.append(f"try them again: {_command('retry', found)}")
    lines += [f"{CALLED.get(name, name)}: {said}" for name, said in _said(found)]
    return "\n".join(printable(line) for line in lines)


def _volume_lines(volumes: Standing | None) -> list[str]:
    """How many volumes are published, and which are written and not published."""
    if volumes is None:
        return []
    lines = [f"  {plural(volumes.all, 'volume')}, {count(volumes.published)} published"]
    if names := volumes.unpublished:
        more = f", and {count(len(names) - _NAMED)} more" if len(names) > _NAMED else ""
        lines.append(f"  {count(len(names))} written, not published: {', '.join(names[:_NAMED])}{more}")
    return lines


def _ahead(found: Status) -> dict[str, int]:
    """Of several stores those that have rows that others lack, and how many."""
    stores = found.settings.get("config", {}).get("to")
    ahead = zip(stores, found.acknowledged, strict=False) if isinstance(stores, list) else ()
    return {store: rows for store, rows in ahead if rows}


def _paced(pace: dict[str, float | None]) -> str:
    """``621/s since it was started, 2 min 10 s to go, the last one 0.4 s ago``."""
    parts = [f"{rate(pace['entries_per_second'] or 0.0)} since it was started"]
    if (left := pace["eta_seconds"]) is not None:
        parts.append(f"{duration(left)} to go")
    if (ago := pace["seconds_since_record"]) is not None:
        parts.append(f"the last one {duration(ago)} ago")
    return ", ".join(parts)


def way_on(found: Status) -> str:
    """What goes on with a job: a command, or a program of the user's."""
    from ..jobs.common.fingerprints import is_from_python

    if is_from_python(found.settings):
        return "let the program that has the pictures call embed_images"
    return _command("resume", found)


def _command(name: str, found: Status) -> str:
    return shlex.join(["penstock", name, found.path])


def _said(found: Status) -> Iterator[tuple[str, str]]:
    """The fingerprints as people would say them."""
    for name, said in found.fingerprints.items():
        if name == "source" and (sources := found.settings.get("sources")):
            yield name, shlex.join(map(_normal, sources)) + said.removeprefix(" ".join(sources))
        elif name == "preprocess":
            yield name, _pixels(json.loads(said))
        else:
            yield name, said


def _normal(source: str) -> str:
    """A path without ``..``, where that is the same place: behind a link it may be another. What is no path stays."""
    from ..sources.paths import real_path

    if not source.startswith(("/", "@/")):
        return source
    mark = "@" if source.startswith("@") else ""
    path = source.removeprefix("@")
    normal = os.path.normpath(path)
    return mark + (normal if real_path(normal) == real_path(path) else path)


def _pixels(settings: dict[str, Any]) -> str:
    """``size 224, resize 256, mean 0.5 0.5 0.5``: what is set of them."""
    said = {name: settings[name] for name in (*_FIRST, *settings) if settings.get(name) is not None}
    return ", ".join(
        f"{name.replace('_', ' ')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in said.items()
    )
