"""``penstock dedup``: near-duplicates among pictures or the rows of a store, listed in a file."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import PipelineFailure, SourceError
from ...formatting import count, plural, printable
from ...registry import scheme_of
from ..config.dedup import DedupConfig
from .exit_status import FAILED, INTERRUPTED, OK, complain, draining, say
from .help import GroupedCommand
from .options import configured_as, setting_options, spelled_as_options

if TYPE_CHECKING:
    from ..dedup import Decision
    from ..jobs.common.memory_estimate import MemoryEstimate
    from ..jobs.dedup.run_dedup import Deduplicated
    from ..journal import Status
    from ..sources import Source

_TELL_SECONDS = 5.0

_EXAMPLES = """\b
Examples:
  penstock dedup ~/Pictures
  penstock dedup ~/Pictures --rule strict --to duplicates.parquet --html duplicates.html
  penstock dedup s3://bucket/photos --job dedup-job --workers 4
  penstock dedup photos.db --rule vectors:0.97 --flag
  penstock dedup http://localhost:19530 --collection holidays --rule vectors:0.98 --delete
  penstock dedup parquet:rows --rule vectors:0.97

\b
No picture is ever deleted: the list says which are not needed; --delete is about rows of a store.
With --job it can be killed at any moment, and the same command goes on; given again later it
judges what is new.

\b
Exit status: 0 all is accounted for within the failure budget, 1 the job failed or all its items
did, 2 wrong usage, 130 interrupted."""

_FIELDS = (
    *("duplicates", "rule", "html", "delete", "flag", "rededup", "collection", "partition", "token", "retry_for"),
    *("include", "exclude", "follow_links", "anonymous", "instance_role", "allow_hosts", "list_filtered"),
    *(
        "job",
        "update",
        "accept_changes",
        "workers",
        "memory",
        "batch_size",
        "insert_batch_size",
        "slots",
        "threads",
        "decoder",
        "sandbox",
    ),
    *("max_failures", "on_failure", "item_timeout", "stall_after", "max_pixels", "max_side", "max_file_bytes"),
    *("report", "progress"),
)


@click.command(
    cls=GroupedCommand,
    epilog=_EXAMPLES,
    short_help="Find near-duplicates among pictures or rows.",
    options_metavar="[OPTIONS]",
)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("-0", "--null", is_flag=True, help="Paths in lists end with NUL (find -print0) instead of with the line.")
@click.option("--config", "config_file", metavar="FILE.yaml", help="Settings from a file; what is given here wins.")
@setting_options(*_FIELDS, model=DedupConfig)
def dedup(sources: tuple[str, ...], null: bool, config_file: str | None, **options: Any) -> int:
    """Find near-duplicates: the same picture in other sizes, formats, colours, crops of some percent.

    SOURCE is what penstock embed reads: a folder, files, a glob, a tar or table of pictures, URLs, @list.txt; or one
    store of vectors: photos.db, http://host:19530, parquet:DIR, npy:DIR, lance:DIR. Of each group the best one stays:
    the largest, then the sharpest; the list names all others and whom they duplicate.
    """
    from ..jobs.common.source_factory import make_source
    from ..jobs.dedup.stores import is_store

    config = configured_as(DedupConfig, config_file, options)
    match [*filter(is_store, sources)]:
        case [store] if len(sources) == 1:
            return _store(config.model_copy(update={"to": store}))
        case [_, *_]:
            raise click.UsageError("a store is compared by itself: give it alone")
        case _:
            pass
    try:
        source = make_source(config, sources, null=null)
    except SourceError as error:
        raise click.UsageError(printable(str(error))) from error
    return _pictures(config, source, sources)


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
    return _pictures(config, source, specs)


def _pictures(config: DedupConfig, source: Source, specs: Sequence[str]) -> int:
    from ..jobs.common.drive import Interrupt
    from ..jobs.dedup.run_dedup import dedup_pictures
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
            step = _Steps(config, "pictures", progress.close)
            with dedup_pictures(
                config, source, watcher=progress, interrupt=interrupt, begins=begins, tells=step
            ) as done:
                progress.close()
                _report(config, done, "picture")
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


def _store(config: DedupConfig) -> int:
    with config.spelled():
        (store,) = config.stores
    if scheme_of(store.address) is None and not Path(store.address).exists():
        raise click.UsageError(f"there is no store {printable(store.address)!r}; penstock embed ... --to makes one")
    from ..jobs.common.drive import Interrupt
    from ..jobs.dedup.run_dedup import dedup_store

    interrupt = Interrupt()
    tells = _Steps(config, "rows")
    with draining(interrupt, _announce), dedup_store(config, interrupt=interrupt, tells=tells) as done:
        _report(config, done, "row")
    if done.decision is None:
        complain("interrupted; nothing was deleted or flagged: the same command begins again")
        return INTERRUPTED
    return OK


def _announce(text: str) -> None:
    os.write(2, f"\n{text}\n".encode())  # by a signal handler, which may have come in the middle of a print


class _Steps:
    """Tells how the steps go that are no pipeline, every few seconds.

    Args:
        config: says how.
        what: is counted.
        begins: called before the first word.
    """

    def __init__(self, config: DedupConfig, what: str, begins: Callable[[], None] = lambda: None) -> None:
        self._mode, self._what, self._begins = config.progress, what, begins
        self._due = time.monotonic() + _TELL_SECONDS

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """So many are done."""
        self._begins()
        if self._mode == "none" or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _TELL_SECONDS
        if self._mode == "json":
            event = {"event": "progress", "step": step, "done": done, "total": total}
            print(json.dumps(event), file=sys.stderr, flush=True)
        else:
            of = f" of {count(total)}" if total else ""
            complain(f"{step}: {count(done)}{of} {self._what}")


def _way_on(config: DedupConfig, specs: Sequence[str]) -> str:
    if config.job is not None:
        return shlex.join(["penstock", "resume", str(config.job)])
    return shlex.join(["penstock", "dedup", *specs, "--to", str(config.duplicates)])


def _report(config: DedupConfig, done: Deduplicated, what: str) -> None:
    """The report, and what was found."""
    from ..observe.render_text import render_text, report_json

    report = done.report
    if config.progress == "json":
        found = done.decision and {**done.decision.figures, "rule": done.decision.rule.name}
        say(json.dumps({"event": "report", **report_json(report), "dedup": found}))
        return
    if report.stages:
        say(render_text(report))
    if letters := report.extra.get("dead_letters"):
        say(printable(f"{plural(report.accounting.dead, 'dead letter')} in {letters}"))
    for path in config.report:
        say(f"report: {printable(str(path))}")
    if done.decision is not None:
        _tell(config, done.decision, what, done.left)


def _tell(config: DedupConfig, decision: Decision, what: str, left: int) -> None:
    exact = f" ({count(decision.exact)} exact)" if decision.exact else ""
    duplicates = f"{plural(decision.dropped, 'duplicate')}{exact}"
    stay = f"{plural(decision.items, what)}: {count(decision.items - decision.dropped)} stay"
    say(printable(f"{stay}, {duplicates} listed in {config.duplicates}"))
    if done := "deleted" if config.delete else "flagged" if config.flag else "":
        why = "they or their keepers changed meanwhile, or have unfit keys" if config.delete else "refused"
        say(f"{done}: {count(decision.dropped - left)}" + (f"; {count(left)} not, {why}" if left else ""))
    if config.html is not None:
        say(f"contact sheet: {printable(str(config.html))}")
    if decision.capped:
        from ..dedup.survivors import CAP

        complain(
            f"{plural(decision.capped, what)} had more than {count(CAP)} neighbours; those of the first ranks count"
        )
