"""Running a job from the command line: its progress, its end, and what the user may want to do then."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import PipelineFailure
from .cli_outcome import INTERRUPTED, OK, complain, draining, say
from .config import ServiceConfig
from .wording import count, plural, printable

if TYPE_CHECKING:
    from .sources import FileSource


def run_and_tell(config: ServiceConfig, source: FileSource) -> int:
    """Run a job; returns the exit status."""
    # The machine is imported once it is clear that there is something to do.
    from .jobs.images import run_job
    from .jobs.places import dead_letters_path
    from .jobs.run import Interrupt
    from .progress import make_progress
    from .render import render_text, report_json

    interrupt = Interrupt()
    progress = make_progress(config.progress, source.total)
    if config.progress != "none":
        source.count()
    with draining(interrupt):
        try:
            report = run_job(config, source, watcher=progress, interrupt=interrupt)
        except PipelineFailure as failure:
            failure.add_note(f"What could not be done is listed in {dead_letters_path(config)}")
            if config.job is not None:
                failure.add_note(f"To go on where it was: {_resume(config)}")
            raise
        finally:
            progress.close()
    books = report.extra.get("job")
    if config.progress == "json":
        say(json.dumps({"event": "report", **report_json(report)}))
    elif books and not report.stages:
        say(f"finished already: {_told(books)}. Nothing to do; --update looks for new and changed files")
    else:
        say(render_text(report))
        _tell_metadata(report.extra.get("metadata"))
        _what_next(config, report.accounting.read, report.accounting.dead)
        if books:
            say(f"job: {_told(books)}")
    if interrupt.requested:
        again = _resume(config) if books else "the same command does the rest (what is written is written over)"
        complain(f"interrupted; to go on: {again}" if books else f"interrupted: {again}")
        return INTERRUPTED
    return OK


def _resume(config: ServiceConfig) -> str:
    return printable(shlex.join(["penstock", "resume", str(config.job)]))


def _told(books: dict[str, Any]) -> str:
    """A job's books in a line."""
    parts = [f"{count(books[name])} {name}" for name in ("written", "filtered", "dead", "remaining")]
    return f"{count(books['entries']) + ' entries'}: {', '.join(parts)}"


def _what_next(config: ServiceConfig, read: int, dead: int) -> None:
    """What the user may want to do now."""
    if read == 0:
        complain("there was nothing to read: the folders are empty")
        return
    if dead:
        say(_dead_letters(config, dead))
    if config.report is not None:
        say(f"report: {printable(str(config.report))}")
    if config.shown_to.startswith("bulk:"):
        folder = config.shown_to.removeprefix("bulk:")
        say(f"import it: {printable(shlex.join(['penstock', 'import', folder, '--to', 'http://HOST:19530']))}")
        return
    collection = [] if config.collection == "images" else ["--collection", config.collection]
    command = shlex.join(["penstock", "search", config.shown_to, "IMAGE", *collection, "--html", "matches.html"])
    say(f"search it: {printable(command)}")


def _tell_metadata(found: dict[str, int] | None) -> None:
    """What in the metadata file and in the sources did not meet."""
    if found and found["unmatched_rows"]:
        complain(f"metadata: {count(found['unmatched_rows'])} of {plural(found['rows'], 'row')} met no picture")
    if found and found["pictures_without"]:
        complain(f"metadata: {plural(found['pictures_without'], 'picture')} had no row in it")


def _dead_letters(config: ServiceConfig, dead: int) -> str:
    """How many of each kind, and where they are listed."""
    from ..sinks.deadletters import read_dead_letters
    from .jobs.places import dead_letters_path

    path = dead_letters_path(config)
    kinds = Counter(letter.error for letter in read_dead_letters(path))
    listed = ", ".join(f"{kind} {count(number)}" for kind, number in kinds.most_common(5))
    return f"{plural(dead, 'dead letter')} in {printable(str(path))}" + (f": {listed}" if listed else "")
