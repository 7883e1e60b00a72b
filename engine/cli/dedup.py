"""``penstock dedup``: near-duplicates among pictures, listed in a file."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import PipelineFailure, SourceError
from ...formatting import count, plural, printable
from ..config.dedup import DedupConfig
from .exit_status import FAILED, INTERRUPTED, OK, complain, draining, say
from .help import GroupedCommand
from .options import configured_as, setting_options, spelled_as_options

if TYPE_CHECKING:
    from ..jobs.common.memory_estimate import MemoryEstimate
    from ..jobs.dedup.run_dedup import Deduplicated
    from ..journal import Status
    from ..sources import Source

_EXAMPLES = """\b
Examples:
  penstock dedup ~/Pictures
  penstock dedup ~/Pictures --rule strict --to duplicates.parquet
  penstock dedup s3://bucket/photos --job dedup-job --workers 4

\b
No picture is ever deleted: the list says which are not needed. With --job it can be killed at any
moment, and the same command goes on; given again later it judges what is new.

\b
Exit status: 0 all is accounted for within the failure budget, 1 the job failed or all its items
did, 2 wrong usage, 130 interrupted."""

_FIELDS = (
    *("duplicates", "rule", "rededup"),
    *("include", "exclude", "follow_links", "anonymous", "instance_role", "allow_hosts", "list_filtered"),
    *("job", "update", "accept_changes", "workers", "memory", "batch_size", "slots", "threads", "decoder", "sandbox"),
    *("max_failures", "on_failure", "item_timeout", "stall_after", "max_pixels", "max_side", "max_file_bytes"),
    *("report", "progress"),
)


@click.command(
    cls=GroupedCommand,
    epilog=_EXAMPLES,
    short_help="Find near-duplicates among pictures.",
    options_metavar="[OPTIONS]",
)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("-0", "--null", is_flag=True, help="Paths in lists end with NUL (find -print0) instead of with the line.")
@click.option("--config", "config_file", metavar="FILE.yaml", help="Settings from a file; what is given here wins.")
@setting_options(*_FIELDS, model=DedupConfig)
def dedup(sources: tuple[str, ...], null: bool, config_file: str | None, **options: Any) -> int:
    """Find near-duplicates: the same picture in other sizes, formats, colours, crops of some percent.

    SOURCE is what penstock embed reads: a folder, files, a glob, a tar or table of pictures, URLs, @list.txt. Of
    each group the best one stays: the largest, then the sharpest; the list names all others and whom they duplicate.
    """
    from ..jobs.common.source_factory import make_source

    config = configured_as(DedupConfig, config_file, options)
    try:
        source = make_source(config, sources, null=null)
    except SourceError as error:
        raise click.UsageError(printable(str(error))) from error
    return _run_and_report(config, source, sources)


def go_on_with_dedup(found: Status, given: Mapping[str, Any]) -> int:
    """Go on with a job that keeps books.

    Args:
        found: the job.
        given: settings for this run, which win over those of the run before.

    Raises:
        ConfigError: a setting is not allowed.
    """
    from ..jobs.common.fingerprints import specs_of
    from ..jobs.common.source_factory import make_source

    said = {name: value for name, value in found.settings["config"].items() if name not in ("to", "embedder")}
    said.pop("collection", None)
    with spelled_as_options():
        config = DedupConfig(**{**said, **given}, job=Path(found.path))
    specs = specs_of(found)
    source = make_source(config, specs, null=found.settings["null"], later=found.listed and not config.update)
    return _run_and_report(config, source, specs)


def _run_and_report(config: DedupConfig, source: Source, specs: Sequence[str]) -> int:
    from ..jobs.common.drive import Interrupt
    from ..jobs.dedup.run_dedup import run_dedup
    from ..observe.progress import make_progress

    interrupt, remaining = Interrupt(), None

    def begins(ceiling: MemoryEstimate, entries: int | None) -> None:
        nonlocal remaining
        remaining = entries
        if config.progress == "json":
            print(json.dumps({"event": "memory_ceiling", **ceiling.to_dict()}), file=sys.stderr, flush=True)
        elif config.progress != "none":
            complain(f"memory: {ceiling if config.memory is not None else ceiling.brief()}")

    progress = make_progress(config.progress, lambda: source.total() if config.job is None else remaining)
    if config.progress != "none" and config.job is None:
        source.count()
    again = f"to go on: {_way_on(config, specs)}"
    with draining(interrupt, progress.announce):
        try:
            with run_dedup(config, source, watcher=progress, interrupt=interrupt, begins=begins) as done:
                progress.close()
                _report(config, done)
        except PipelineFailure as failure:
            if config.job is not None:
                failure.add_note(printable(again))
            raise
        finally:
            progress.close()
    if done.decision is None:
        complain(printable(f"interrupted; {again}"))
        return INTERRUPTED
    books = done.report.extra.get("job")
    accounting = done.report.accounting
    written, dead = (books["written"], books["dead"]) if books else (accounting.written, accounting.dead)
    return FAILED if dead and not written else OK


def _way_on(config: DedupConfig, specs: Sequence[str]) -> str:
    if config.job is not None:
        return shlex.join(["penstock", "resume", str(config.job)])
    return shlex.join(["penstock", "dedup", *specs, "--to", str(config.duplicates)])


def _report(config: DedupConfig, done: Deduplicated) -> None:
    """The report, and what was found."""
    from ..jobs.common.output_paths import dead_letters_path
    from ..jobs.dedup.run_dedup import signing
    from ..observe.render_text import render_text, report_json

    report, decision = done.report, done.decision
    found = None
    if decision is not None:
        found = {
            "items": decision.items,
            "duplicates": decision.dropped,
            "exact": decision.exact,
            "rule": decision.rule.name,
            "capped": decision.capped,
        }
    if config.progress == "json":
        say(json.dumps({"event": "report", **report_json(report), "dedup": found}))
        return
    if report.stages:
        say(render_text(report))
    if report.accounting.dead:
        letters = dead_letters_path(signing(config, Path("signatures")))
        say(printable(f"{plural(report.accounting.dead, 'dead letter')} in {letters}"))
    for path in config.report:
        say(f"report: {printable(str(path))}")
    if decision is not None:
        exact = f" ({count(decision.exact)} exact)" if decision.exact else ""
        say(
            printable(
                f"{plural(decision.items, 'picture')}: {count(decision.items - decision.dropped)} stay,"
                f" {plural(decision.dropped, 'duplicate')}{exact} listed in {config.duplicates}"
            )
        )
        if decision.capped:
            complain(f"{plural(decision.capped, 'picture')} had more than 1,000 neighbours; the first by rank counted")
