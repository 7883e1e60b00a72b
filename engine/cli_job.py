"""``penstock status``, ``resume`` and ``retry``: jobs that keep books in a folder (``embed --job DIR``)."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, SourceError
from .cli_options import RUN_FIELDS, JobCommand, given_of, setting_options, spelled_as_options
from .cli_outcome import OK, complain, say
from .cli_run import run_and_tell
from .config import ServiceConfig
from .wording import count, plural, printable

if TYPE_CHECKING:
    from .journal import Status
    from .sources import FileSource

_LETTERS = "dead-letters.jsonl"

_STATUS_EXAMPLES = """\b
Examples:
  penstock embed ~/Pictures --to photos.db --job photos-job
  penstock status photos-job
  penstock status photos-job --json | jq .counts.remaining"""

_RESUME_EXAMPLES = """\b
Examples:
  penstock resume photos-job
  penstock resume photos-job --workers 1 --memory 2GiB
  penstock resume photos-job --update

Source, store, embedder and pixels are the job's own: they are no options here."""

_RETRY_EXAMPLES = """\b
Examples:
  penstock retry photos-job
  penstock retry photos-job --stage embed
  penstock retry photos-job --error ReadError
  penstock retry photos-job --error TooLargeError --max-pixels 150000000

How often an item was tried is counted on in its dead letter. What the job has not done yet goes
on, too."""

_STAGES = ("source", "preprocess", "embed", "insert")

_folder = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.command(epilog=_STATUS_EXAMPLES, short_help="How far a job is.")
@_folder
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(folder: Path, as_json: bool) -> int:
    """What became of each entry of a job's source, also while it runs."""
    from .jobs.letters import errors_of
    from .journal import read_status

    _need_job(folder)
    found = read_status(folder, dead=True)
    errors = errors_of(folder / _LETTERS, found.dead)
    say(json.dumps(_as_json(found, errors), indent=2) if as_json else _as_text(found, errors))
    return OK


@click.command(cls=JobCommand, epilog=_RESUME_EXAMPLES, short_help="Go on with a job where it was.")
@_folder
@setting_options(*RUN_FIELDS, defaults=False)
def resume(folder: Path, **options: Any) -> int:
    """Go on with a job where it was, however it ended. Settings are those of its last run, unless an option says
    otherwise; a token is not kept: it is read from MILVUS_TOKEN.

    The command the job was begun with, given again, goes on, too.
    """
    return run_and_tell(*_begun(folder, options))


@click.command(cls=JobCommand, epilog=_RETRY_EXAMPLES, short_help="Try again what a job could not do.")
@_folder
@click.option("--stage", type=click.Choice(_STAGES), help="Only what failed there.")
@click.option("--error", metavar="E", help="Only what failed with this error, e.g. ReadError.")
@setting_options(*(field for field in RUN_FIELDS if field != "update"), defaults=False)
def retry(folder: Path, stage: str | None, error: str | None, **options: Any) -> int:
    """Try again what a job could not do: its dead letters, or some of them. Settings are those of its last run, unless
    an option says otherwise.
    """
    from .jobs.letters import latest_letters, undo_dead
    from .journal import JobFolder

    config, source = _begun(folder, options)
    chosen = None
    if stage is not None or error is not None:
        chosen = {
            key
            for key, letter in latest_letters(folder / _LETTERS).items()
            if stage in (None, letter.stage) and error in (None, letter.error)
        }
    with JobFolder.create_or_open(folder) as job:
        others = job.counts.remaining
        again = undo_dead(job, chosen)
    if not again:
        say("there are no dead letters" if chosen is None else "there is nothing to try again")
        if others:
            say(f"what is not done yet ({plural(others, 'item')}) goes on with: {_resume(folder)}")
        return OK
    complain(f"trying {plural(again, 'item')} again" + (f"; {count(others)} that remain go on, too" if others else ""))
    return run_and_tell(config, source)


def _begun(folder: Path, options: Mapping[str, Any]) -> tuple[ServiceConfig, FileSource]:
    """What a job was begun with, to go on with it, under the options. Its sources are looked at where they will be
    read.

    Raises:
        ConfigError: there is no job, it died before it knew, something that is not kept is needed, or a value is not
            allowed.
    """
    from .jobs.identity import begun_with
    from .journal import read_status
    from .render import check_report_path

    _need_job(folder)
    try:
        with spelled_as_options():
            config, source = begun_with(read_status(folder), **given_of(options))
    except SourceError as error:
        raise click.UsageError(printable(str(error))) from error
    with config.spelled():
        for path in config.report:
            check_report_path(path)
    return config, source


def _resume(folder: Path) -> str:
    return printable(shlex.join(["penstock", "resume", str(folder)]))


def _need_job(folder: Path) -> None:
    if not (folder / "job.json").is_file():
        raise ConfigError(f"{folder} is no job folder: penstock embed ... --job {folder} makes one")


def _as_json(found: Status, errors: Counter[str]) -> dict[str, Any]:
    counts = found.counts
    return {
        "job": found.job,
        "created": found.created,
        "finished": found.finished,
        "running": found.owner is not None,
        "counts": {name: getattr(counts, name) for name in ("total", "written", "filtered", "dead", "remaining")},
        "errors": dict(errors),
        "fingerprints": dict(found.fingerprints),
    }


def _as_text(found: Status, errors: Counter[str]) -> str:
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
        lines.append("dead letters: " + ", ".join(f"{error} {count(number)}" for error, number in errors.most_common()))
        lines.append(f"try them again: penstock retry {found.path}")
    lines += [f"{name}: {said}" for name, said in found.fingerprints.items()]
    return printable_lines(lines)


def printable_lines(lines: list[str]) -> str:
    """Lines for people; what is hostile in them is escaped."""
    return "\n".join(printable(line) for line in lines)
