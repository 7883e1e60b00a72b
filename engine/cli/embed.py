"""Running a job from the command line: its progress, its end, and what the user may want to do then."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ...errors import PipelineFailure
from ...formatting import count, plural, printable
from ..config.model import ServiceConfig
from ..config.videos import VideoConfig
from ..machine.resources import limited_by
from .exit_status import FAILED, INTERRUPTED, OK, complain, draining, say

if TYPE_CHECKING:
    from .. import Report
    from ..jobs.common.memory_estimate import MemoryEstimate
    from ..sources import Source

_KINDS = 5
_REASONS = 3
"""Reasons for which things are left out, to print."""


def run_and_tell(config: ServiceConfig, source: Source) -> int:
    """Run a job; returns the exit status."""
    if config.kind == VideoConfig.kind:
        from ..workers.video_server import warm_start
    else:
        from ..workers.picture_server import warm_start

    # It imports JAX while this process imports the rest. A job that is there already may be finished.
    fork_server = warm_start() if config.job is None or not config.job.exists() else nullcontext()
    with fork_server:
        return _run_and_tell(config, source)


def _run_and_tell(config: ServiceConfig, source: Source) -> int:
    # The machine is imported once it is clear that there is something to do.
    from ..jobs.common.drive import Interrupt
    from ..jobs.common.output_paths import dead_letters_path
    from ..observe.progress import make_progress
    from ..observe.render_text import render_text, report_json

    if config.kind == VideoConfig.kind:
        from ..jobs.videos.run_videos import run_videos as run_job
    else:
        from ..jobs.images.run_job import run_job

    interrupt = Interrupt()
    remaining: int | None = None

    def begins(ceiling: MemoryEstimate, entries: int | None) -> None:
        nonlocal remaining
        remaining = entries
        _tell_ceiling(config, ceiling)
        _tell_pixels(config)

    progress = make_progress(config.progress, lambda: source.total() if config.job is None else remaining)
    if config.progress != "none" and config.job is None:  # the books of a job have counted
        source.count()
    with draining(interrupt, progress.announce):
        try:
            report = run_job(config, source, watcher=progress, interrupt=interrupt, begins=begins)
        except PipelineFailure as failure:
            if (letters := dead_letters_path(config)).exists():
                failure.add_note(f"What could not be done is listed in {letters}")
            if config.job is not None:
                failure.add_note(f"To go on where it was: {_resume(config)}")
            raise
        finally:
            progress.close()
    books = report.extra.get("job")
    if config.progress == "json":
        say(json.dumps({"event": "report", **report_json(report)}))
    elif books and report.extra.get("finished_store"):
        say(f"all was written: {_counts_line(books)}. What an earlier run had left to do in the store is done")
    elif books and not report.stages and not interrupt.requested:
        say(
            f"nothing new: {_counts_line(books)}"
            if config.update
            else f"finished already: {_counts_line(books)}. Nothing to do; --update looks for new and changed files"
        )
    elif report.accounting.read or not interrupt.requested:
        say(render_text(report))
        _tell_metadata(report.extra.get("metadata"))
        if not report.extra.get("nothing_written"):
            _tell_filtered(report.extra.get("filtered"))
        _what_next(config, report)
        if books:
            say(f"job: {_counts_line(books)}")
    if config.progress != "json" and (said := report.extra.get("nothing_written")):
        complain(said)
    if left := report.extra.get("videos", {}).get("left"):
        complain(f"{plural(left, 'video')} of hosts that refuse remain; to go on later: {_resume(config)}")
        return FAILED
    if interrupt.requested:
        again = "the same command does all of it again (rows are written over); add --job DIR to go on where it was"
        complain(f"interrupted; to go on: {_resume(config)}" if books else f"interrupted: {again}")
        return INTERRUPTED
    return FAILED if _all_died(report) else OK


def _all_died(report: Report) -> bool:
    """Whether no row came of the whole job, although there were items."""
    books = report.extra.get("job")
    written, dead = (books["written"], books["dead"]) if books else (report.accounting.written, report.accounting.dead)
    return dead > 0 and written == 0


def _tell_ceiling(config: ServiceConfig, ceiling: MemoryEstimate) -> None:
    """The most memory the job will take, before it takes any."""
    if config.progress == "json":
        print(json.dumps({"event": "memory_ceiling", **ceiling.to_dict()}), file=sys.stderr, flush=True)
    elif config.progress != "none":
        complain(f"memory: {ceiling if config.memory is not None else _brief(config, ceiling)}")


def _brief(config: ServiceConfig, ceiling: MemoryEstimate) -> str:
    """The figure, why there are so few workers where that is not the user's wish, and the knob."""
    why = limited_by() if config.workers is None else ""
    return f"{ceiling.brief()}{f' ({why})' if why else ''}; --memory makes it less"


def _tell_pixels(config: ServiceConfig) -> None:
    """Which pixels a model gets whose preprocessing nobody named: with others its vectors would be worse, unnoticed."""
    if config.preset is not None or config.embedder.startswith("gist") or config.progress in ("json", "none"):
        return
    from ..jobs.common.plan import make_plan

    spec = make_plan(config).spec
    how = "normalized as for imagenet" if spec.mean is not None else "not normalized"
    complain(f"pixels: {spec.size} x {spec.size}, {how}; --preset clip, siglip or dinov2 for a model of that kind")


def _resume(config: ServiceConfig) -> str:
    return printable(shlex.join(["penstock", "resume", str(config.job)]))


def _counts_line(books: dict[str, Any]) -> str:
    """A job's books in a line."""
    parts = [f"{count(books[name])} {name}" for name in ("written", "filtered", "dead", "remaining")]
    return f"{count(books['entries']) + ' entries'}: {', '.join(parts)}"


def _what_next(config: ServiceConfig, report: Report) -> None:
    """What the user may want to do now."""
    if report.accounting.dead:
        say(_dead_letters(config, report.accounting.dead))
    for path in config.report:
        say(f"report: {printable(str(path))}")
    if isinstance(config, VideoConfig) and config.html is not None:
        say(f"contact sheet: {printable(str(config.html))}")
    if not report.accounting.written:
        return
    from ..jobs.common.sink_factory import job_sink

    if said := job_sink(config).next_step:
        say(printable(said))


def _tell_filtered(reasons: dict[str, int] | None) -> None:
    """Why things were left out."""
    if reasons:
        shown = [f"{count(number)} {why}" for why, number in Counter(reasons).most_common(_REASONS)]
        more = f"; and {len(reasons) - _REASONS} more reasons" if len(reasons) > _REASONS else ""
        say(printable(f"filtered: {'; '.join(shown)}{more}"))


def _tell_metadata(found: dict[str, int] | None) -> None:
    """What in the metadata file and in the sources did not meet."""
    if found and found.get("unmatched_rows"):
        complain(f"metadata: {count(found['unmatched_rows'])} of {plural(found['rows'], 'row')} met no picture")
    if found and found["pictures_without"]:
        complain(f"metadata: {plural(found['pictures_without'], 'picture')} had no row in it")


def _dead_letters(config: ServiceConfig, dead: int) -> str:
    """How many of each kind, and where they are listed; of a job that keeps books those of its other runs, too."""
    from ...sinks import read_dead_letters
    from ..jobs.common.dead_letters import errors_of
    from ..jobs.common.output_paths import dead_letters_path
    from ..journal import read_status

    path = dead_letters_path(config)
    if config.job is None:
        kinds = Counter(letter.error for letter in read_dead_letters(path))
    else:
        kinds = errors_of(path, read_status(config.job, dead=True).dead)
        dead = kinds.total()
    listed = [f"{kind} {count(number)}" for kind, number in kinds.most_common(_KINDS)]
    if rest := [number for _, number in kinds.most_common()[_KINDS:]]:
        listed.append(f"and {count(sum(rest))} of {plural(len(rest), 'other kind')}")
    return f"{plural(dead, 'dead letter')} in {printable(str(path))}" + (f": {', '.join(listed)}" if listed else "")
