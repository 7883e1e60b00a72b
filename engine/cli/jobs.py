"""``penstock resume`` and ``retry``: going on with jobs that keep books in a folder (``embed --job DIR``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import SourceError
from ...formatting import count, plural, printable
from ..config.dedup import DedupConfig
from ..config.model import PER_RUN, ServiceConfig
from ..config.videos import VideoConfig
from .embed import run_and_tell
from .exit_status import OK, complain, say
from .options import MODELS, RUN_FIELDS, JobCommand, given_of, setting_options, spelled_as_options
from .status import LETTERS, job_folder, listed_errors, need_job, way_on

if TYPE_CHECKING:
    from ..journal import Status
    from ..sources import Source

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
  penstock retry volumes-job --stage decode
  penstock retry photos-job --error ReadError
  penstock retry photos-job --error TooLargeError --max-pixels 150000000

How often an item was tried is counted on in its dead letter. What the job has not done yet goes
on, too."""

_VIDEO_FIELDS = tuple(name for name in VideoConfig.model_fields if name in VideoConfig.per_run - PER_RUN)
"""Fields of jobs on videos alone that may differ from run to run."""


@click.command(cls=JobCommand, epilog=_RESUME_EXAMPLES, short_help="Go on with a job where it was.")
@job_folder
@setting_options(*RUN_FIELDS, defaults=False)
@setting_options(*_VIDEO_FIELDS, defaults=False, model=VideoConfig)
def resume(folder: Path, **options: Any) -> int:
    """Go on with a job where it was, however it ended. Settings are those of its last run, unless an option says
    otherwise; a token is not kept: it is read from MILVUS_TOKEN.

    The command the job was begun with, given again, goes on, too.
    """
    return _go_on(folder, options)


@click.command(cls=JobCommand, epilog=_RETRY_EXAMPLES, short_help="Try again what a job could not do.")
@job_folder
@click.option("--stage", metavar="S", help="Only what failed there, e.g. preprocess; of volumes decode, say.")
@click.option("--error", metavar="E", help="Only what failed with this error, e.g. ReadError.")
@setting_options(*(field for field in RUN_FIELDS if field != "update"), defaults=False)
@setting_options(*_VIDEO_FIELDS, defaults=False, model=VideoConfig)
def retry(folder: Path, stage: str | None, error: str | None, **options: Any) -> int:
    """Try again what a job could not do: its dead letters, or some of them. Settings are those of its last run, unless
    an option says otherwise.
    """
    from ..jobs.common.dead_letters import latest_letters, undo_dead
    from ..jobs.common.fingerprints import is_by_source, is_from_python
    from ..journal import JobFolder, read_status

    need_job(folder)
    found = read_status(folder)
    _check_stage(stage, found)
    is_theirs = is_from_python(found.settings)
    begun = _begun(folder, options) if is_by_source(found.settings) and not is_theirs else None
    chosen = None
    if stage is not None or error is not None:
        chosen = {
            key
            for key, letter in latest_letters(folder / LETTERS).items()
            if stage in (None, letter.stage) and error in (None, letter.error)
        }
    with JobFolder.create_or_open(folder) as job:
        others = job.counts.remaining
        again = undo_dead(job, chosen)
    config = begun[0] if begun else None
    asked = config is not None and (config.redo or config.accept_store or config.accept_changes)
    if not (again or asked):  # by the way on that a refusal named
        say(_nothing_to_retry(folder, stage, error))
        if others:
            say(printable(f"to go on with what is not done yet ({plural(others, 'item')}): {way_on(found)}"))
        return OK
    if is_theirs:
        say(f"{plural(again, 'item')} to be tried again by the program that has the pictures: let it call embed_images")
        return OK
    if again:
        more = f"; {count(others)} that remain go on, too" if others else ""
        complain(f"trying {plural(again, 'item')} again{more}")
    return run_and_tell(*begun) if begun else _go_on(folder, options)


def _go_on(folder: Path, options: Mapping[str, Any]) -> int:
    """Run a job of whatever kind again, under the options."""
    from ..jobs.common.fingerprints import is_by_source, kind_of
    from ..journal import read_status

    need_job(folder)
    found = read_status(folder)
    if is_by_source(found.settings):
        return run_and_tell(*_begun(folder, options))
    if kind_of(found.settings) == DedupConfig.kind:
        from .dedup import go_on_with_dedup

        return go_on_with_dedup(found, given_of(options))
    from .volumes import go_on_with_volumes

    return go_on_with_volumes(found, given_of(options))


def _check_stage(stage: str | None, found: Status) -> None:
    """Refuse a stage that the job does not have, and say which there are."""
    from ..jobs.common.fingerprints import kind_of

    stages = MODELS[kind_of(found.settings)].stages
    if stage is not None and stage not in stages:
        raise click.UsageError(f"--stage: {printable(stage)!r} is no stage of this job; there are {', '.join(stages)}")


def _nothing_to_retry(folder: Path, stage: str | None, error: str | None) -> str:
    """That no dead letter is what was asked for, and which there are."""
    from ..jobs.common.dead_letters import errors_of
    from ..journal import read_status

    errors = errors_of(folder / LETTERS, read_status(folder, dead=True).dead)
    if not errors:
        return "there are no dead letters"
    asked = [f"the {name} {printable(said)}" for name, said in (("error", error), ("stage", stage)) if said is not None]
    return f"no dead letter has {' and '.join(asked)}; there are {listed_errors(errors)}"


def _begun(folder: Path, options: Mapping[str, Any]) -> tuple[ServiceConfig, Source]:
    """What a job was begun with, to go on with it, under the options. Its sources are looked at where they will be
    read.

    Raises:
        ConfigError: there is no job, it died before it knew, something that is not kept is needed, or a value is not
            allowed.
    """
    from ..jobs.common.fingerprints import begun_with
    from ..journal import read_status
    from ..observe.report_files import check_report_path

    need_job(folder)
    try:
        with spelled_as_options():
            config, source = begun_with(read_status(folder), **given_of(options))
    except SourceError as error:
        raise click.UsageError(printable(str(error))) from error
    with config.spelled():
        for path in config.report:
            check_report_path(path)
    return config, source
