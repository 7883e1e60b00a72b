"""``penstock clean``: takes away what dead processes have left, in shared memory and where data sets are published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import ConfigError
from ...formatting import plural, printable, size
from .exit_status import FAILED, OK, say
from .help import GroupedCommand

if TYPE_CHECKING:
    from ...sinks.parquet.leftovers import Leftover

_EXAMPLES = """\b
Examples:
  penstock clean --dry-run
  penstock clean parquet:rows --dry-run
  penstock clean parquet:s3://bucket/rows
  penstock clean parquet:s3://bucket/rows --job photos-job

Exit status: 0 done, 1 a job that was named lives, 2 wrong usage."""


@click.command(cls=GroupedCommand, epilog=_EXAMPLES, short_help="Take away what dead processes have left.")
@click.argument("target", required=False, metavar="[TARGET]")
@click.option("--dry-run", is_flag=True, help="Only say what would be taken away.")
@click.option(
    "--job", "jobs", multiple=True, metavar="ID|DIR", help="Only that job's, also if it could go on; may be repeated."
)
@click.option("--all", "everything", is_flag=True, help="Also that of dead jobs that keep books and could go on.")
def clean(target: str | None, dry_run: bool, jobs: tuple[str, ...], everything: bool) -> int:
    """Take away what dead processes have left: in shared memory, or at TARGET, where a Parquet data set is published,
    the claims, parts, uploads and rows of dead jobs.

    Nothing of a live job is touched, nor what is published. A dead job that keeps books can go on with its rows
    (penstock resume): they stay, unless --job or --all says otherwise.
    """
    if target is None:
        if jobs or everything:
            raise click.UsageError("--job and --all are about a TARGET, such as parquet:rows")
        return _clean_memory(dry_run)
    from ...sinks.parquet.leftovers import leftovers, sweep
    from ...sinks.parquet.places import parquet_place

    if not target.startswith("parquet:"):
        raise ConfigError(f"TARGET: {printable(target)!r}: only Parquet data sets are published: parquet:DIR")
    place, wanted = parquet_place(target), {_job(job) for job in jobs}
    every = leftovers(place)
    found = [left for left in every if not wanted or left.job in wanted]
    if not found:
        say(printable(f"nothing is left over in {place.uri}"))
    status = OK
    for left in found:
        if left.is_live:
            told = "alive, left alone"
            status = FAILED if left.job in wanted else status
        elif left.keeps_books and not (everything or wanted):
            told = f"can go on (penstock resume), left alone; --job {left.job} takes it away"
        elif dry_run:
            told = "would be taken away"
        else:
            told = "taken away" if sweep(place, left.job) else "alive by now, left alone"
        say(f"job {left.job}: {_what(left)}: {told}")
    if not dry_run and not any(left.is_live for left in every):
        place.tidy()
    return status


def _clean_memory(dry_run: bool) -> int:
    from ...shm.janitor import orphans, sweep

    left = orphans()
    if not dry_run:
        sweep()
    nbytes = size(sum(orphan.nbytes for orphan in left))
    told = "would be taken away" if dry_run else "taken away"
    say(
        f"{plural(len(left), 'segment')} of shared memory of dead processes ({nbytes}): {told}"
        if left
        else "no dead process has left shared memory"
    )
    return OK


def _job(named: str) -> str:
    """The id of a job that is named by it, or by its folder."""
    from ..journal import job_id

    if re.fullmatch(r"[0-9a-f]{32}", named):
        return named
    if found := job_id(Path(named)):
        return found
    raise click.UsageError(f"--job: {printable(named)!r} is neither the id of a job nor the folder of one")


def _what(left: Leftover) -> str:
    parts = [f"{plural(left.files, 'file')} ({size(left.nbytes)})"]
    parts += [plural(left.unfinished, "part") + " not shown"] if left.unfinished else []
    parts += ["a claim"] if left.has_claim else []
    return ", ".join(parts)
