"""``penstock status``, ``resume`` and ``retry``: jobs that keep books in a folder (``embed --job DIR``)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, SourceError
from .cli_outcome import OK, complain, say
from .cli_run import run_and_tell
from .config import ServiceConfig
from .wording import count, plural, printable

if TYPE_CHECKING:
    from .journal import Status

_STATUS_EXAMPLES = """\b
Examples:
  penstock embed ~/Pictures --to photos.db --job photos-job
  penstock status photos-job
  penstock status photos-job --json | jq .counts.remaining"""

_RETRY_EXAMPLES = """\b
Examples:
  penstock retry photos-job
  penstock retry photos-job --stage embed
  penstock retry photos-job --error ReadError

How often an item was tried is counted on in its dead letter."""

_folder = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.command(epilog=_STATUS_EXAMPLES, short_help="How far a job is.")
@_folder
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(folder: Path, as_json: bool) -> int:
    """What became of each entry of a job's source, also while it runs."""
    from .journal import read_status

    _need_job(folder)
    found = read_status(folder)
    letters = _letters(folder)
    say(json.dumps(_as_json(found, letters), indent=2) if as_json else _as_text(found, letters))
    return OK


@click.command(short_help="Go on with a job where it was.")
@_folder
@click.option("--update", is_flag=True, help="Look at the source again: new and changed files are done too.")
def resume(folder: Path, update: bool) -> int:
    """Go on with a job where it was, however it ended. Settings are those it was begun with.

    The command it was begun with, given again, does the same.
    """
    config, sources = _begun(folder, update)
    return _run(config, sources)


@click.command(epilog=_RETRY_EXAMPLES, short_help="Try again what a job could not do.")
@_folder
@click.option("--stage", metavar="S", help="Only what failed there: source, preprocess, embed or insert.")
@click.option("--error", metavar="E", help="Only what failed with this error, e.g. ReadError.")
def retry(folder: Path, stage: str | None, error: str | None) -> int:
    """Try again what a job could not do: its dead letters, or some of them."""
    from .jobs.books import latest_letters, opened, undo_dead

    config, sources = _begun(folder, update=False)
    letters = latest_letters(folder / "dead-letters.jsonl")
    chosen = [
        key
        for key, letter in letters.items()
        if (stage is None or letter.stage == stage) and (error is None or letter.error == error)
    ]
    with opened(folder) as job:
        again = undo_dead(job, chosen)
        remaining = job.counts.remaining
    if not remaining:
        say("there is nothing to try again" if stage or error else "there are no dead letters")
        return OK
    complain(f"trying {plural(again, 'item')} again")
    return _run(config, sources)


def _run(config: ServiceConfig, sources: list[str]) -> int:
    from .sources import FileSource

    try:
        source = FileSource(sources)
    except SourceError as error:
        raise click.UsageError(printable(str(error))) from error
    return run_and_tell(config, source)


def _begun(folder: Path, update: bool) -> tuple[ServiceConfig, list[str]]:
    """Settings and sources that a job was begun with.

    Raises:
        ConfigError: there is no job, or it died before it knew.
    """
    from .journal import read_status

    _need_job(folder)
    settings = read_status(folder).settings
    if "config" not in settings:
        raise ConfigError(f"the job in {folder} ended before it began: start it again with penstock embed")
    config = ServiceConfig(**settings["config"], job=folder, update=update)
    return config, list(settings["sources"])


def _need_job(folder: Path) -> None:
    if not (folder / "job.json").is_file():
        raise ConfigError(f"{folder} is no job folder: penstock embed ... --job {folder} makes one")


def _letters(folder: Path) -> Counter[str]:
    """How many dead letters of each error stand; those of items that a retry has done are left out by the counts."""
    from .jobs.books import latest_letters

    return Counter(letter.error for letter in latest_letters(folder / "dead-letters.jsonl").values())


def _as_json(found: Status, letters: Counter[str]) -> dict[str, Any]:
    counts = found.counts
    return {
        "job": found.job,
        "created": found.created,
        "finished": found.finished,
        "running": found.owner is not None,
        "counts": {name: getattr(counts, name) for name in ("total", "written", "filtered", "dead", "remaining")},
        "errors": dict(letters),
        "fingerprints": dict(found.fingerprints),
    }


def _as_text(found: Status, letters: Counter[str]) -> str:
    counts = found.counts
    if found.owner is not None:
        state = f"running (pid {found.owner.pid})"
    elif not found.listed:
        state = "not begun: its source is not listed yet"
    else:
        state = "finished" if found.finished else f"to go on: penstock resume {found.path}"
    lines = [f"job {found.job} of {found.created}: {state}"]
    lines += [
        f"  {name:<10} {count(getattr(counts, name)):>12}" for name in ("written", "filtered", "dead", "remaining")
    ]
    lines += [f"  {'total':<10} {count(counts.total):>12}"]
    if counts.dead:
        lines.append(
            "dead letters: " + ", ".join(f"{error} {count(number)}" for error, number in letters.most_common())
        )
        lines.append(f"try them again: penstock retry {found.path}")
    lines += [f"{name}: {said}" for name, said in found.fingerprints.items()]
    return printable_lines(lines)


def printable_lines(lines: list[str]) -> str:
    """Lines for people; what is hostile in them is escaped."""
    return "\n".join(printable(line) for line in lines)
