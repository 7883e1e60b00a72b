"""A job that keeps books: what its source held, what became of each entry, and what a later run has to do.

The order makes it safe to die at any moment: a row is acknowledged by the store, then recorded as written; a dead
letter is in its file, then recorded as dead. What is recorded is never done again; what is not is done again, and
writes over itself. Only what was in flight is done twice.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from ...errors import AccountingError, ConfigError, ReadError
from ...sinks.deadletters import DeadLetter, read_dead_letters
from .. import Report
from ..config import ServiceConfig
from ..journal import Changes, Counts, Difference, Entry, JobFolder, Kind, Outcome
from ..sources import Broken, FileSource, Filtered, Item, key_of, path_of
from .batches import Written
from .places import dead_letters_path
from .plan import Plan
from .recipe import recipe_of

_logger = logging.getLogger(__name__)

_SYNC_SECONDS = 1.0
"""What a power failure may cost: outcomes of so many seconds are found out again. A dead process costs none."""


class JobBooks:
    """The books of the job in ``config.job``, for one run. Used as a context manager.

    Args:
        config: with ``job``.
        plan: what makes the vectors.
        source: what the job is about; asked for its entries in the first run, and when they are to be compared.

    Raises:
        JobLockedError: another process runs this job.
        ConfigError: the folder is of a job with other settings, and ``accept_changes`` is not set.
        JournalError: the books cannot be kept.
    """

    def __init__(self, config: ServiceConfig, plan: Plan, source: FileSource) -> None:
        assert config.job is not None
        self._source = source
        self._folder = JobFolder.create_or_open(config.job)
        self._synced = time.monotonic()
        self.changes = Changes()
        try:
            self._check(config, plan)
            self._list(config.update)
            self._before = self._folder.counts
            self._attempts = _attempts_in(dead_letters_path(config))
        except BaseException:
            self._folder.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close()

    @property
    def counts(self) -> Counts:
        """Of all runs together."""
        return self._folder.counts

    @property
    def finished(self) -> bool:
        """Whether nothing remains."""
        return self._folder.finished

    @property
    def begun(self) -> bool:
        """Whether an earlier run has written rows."""
        return self._before.written > 0

    def things(self) -> Iterator[Item | Filtered | Broken]:
        """What remains, in the order of the listing. What is no picture is recorded as it passes."""
        for span in self._folder.remaining():
            for ordinal, entry in zip(span, self._folder.snapshot.entries(span.start, span.stop), strict=True):
                key = key_of(entry.name)
                if entry.kind is Kind.FILTERED:
                    self._folder.filtered([ordinal])
                    yield Filtered(key, entry.tag, ordinal)
                elif entry.kind is Kind.BROKEN:
                    yield Broken(key, ReadError(entry.tag), ordinal)
                else:
                    yield Item(key, entry.name, ordinal=ordinal)

    def total(self) -> int:
        """How many entries this run has to do."""
        return self._before.remaining

    # -- recording ----------------------------------------------------------------------------------------------------

    def written(self, value: Written) -> None:
        """The store has acknowledged these rows."""
        self._folder.written([picture.ordinal for picture in value.pictures])

    def dead(self, ordinals: list[int]) -> None:
        """The dead letters of these are written."""
        self._folder.dead(ordinals)

    def attempts(self, key: str) -> int:
        """How often earlier runs have tried an item that they gave up."""
        return self._attempts.get(key, 0)

    def beat(self) -> None:
        """Called often, from a thread that may wait: puts the records on the disk about once a second."""
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            self._folder.sync()
            self._synced = time.monotonic()

    def check(self, report: Report, interrupted: bool) -> None:
        """Hold what this run recorded against what its engine counted, at its end.

        Args:
            report: of a run that has not failed.
            interrupted: whether it was asked to end early; else nothing may remain.

        Raises:
            AccountingError: they differ.
        """
        before, after, books = self._before, self._folder.counts, report.accounting
        found = {
            "written": (after.written - before.written, books.written),
            "filtered": (after.filtered - before.filtered, books.filtered),
            "dead": (after.dead - before.dead, books.dead),
            "remaining": (after.remaining, after.remaining if interrupted else 0),
        }
        wrong = [
            f"{name}: {kept} in the journal, {counted} counted"
            for name, (kept, counted) in found.items()
            if kept != counted
        ]
        if wrong:
            raise AccountingError(f"{self._folder.path}: the journal and the stages disagree: {'; '.join(wrong)}")

    def told(self) -> dict[str, Any]:
        """For the report: the whole job's books."""
        counts = self._folder.counts
        return {
            "folder": self._folder.path,
            "entries": counts.total,
            "written": counts.written,
            "filtered": counts.filtered,
            "dead": counts.dead,
            "remaining": counts.remaining,
        }

    # -- beginning ----------------------------------------------------------------------------------------------------

    def _check(self, config: ServiceConfig, plan: Plan) -> None:
        """Refuse to go on with another job's books."""
        here = fingerprints(config, plan, self._source)
        different = self._folder.check(here)
        if different and not config.accept_changes:
            told = "; ".join(map(_change, different))
            raise ConfigError(
                f"the job in {self._folder.path} was begun otherwise: {told}. Take another folder for another job, or "
                "go on with --accept-changes: what is written stays as it is"
            )
        if different or not self._folder.fingerprints:
            self._folder.accept(here, settings_of(config, self._source))

    def _list(self, update: bool) -> None:
        if not self._folder.has_snapshot:
            self._folder.write_snapshot(entries_of(self._source))
        elif update:
            self.changes = self._folder.renew_snapshot(entries_of(self._source))


def entries_of(source: FileSource) -> Iterator[Entry]:
    """A source's entries as a listing keeps them."""
    for part, thing in source.parts():
        match thing:
            case Item(path=str(path)):
                size, mtime = _look(path)
                yield Entry(path, Kind.ITEM, size, mtime, "", part)
            case Filtered():
                yield Entry(path_of(thing.key), Kind.FILTERED, tag=thing.why, part=part)
            case Broken():
                yield Entry(path_of(thing.key), Kind.BROKEN, tag=str(thing.error), part=part)
            case _:
                raise ConfigError("job: a job that keeps books needs files")


def _look(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116  (as text, once a picture)
    except OSError:
        return -1, 0  # it went away just now: the worker will say so
    return status.st_size, status.st_mtime_ns


def fingerprints(config: ServiceConfig, plan: Plan, source: FileSource) -> Mapping[str, str]:
    """What may not change from run to run, in words that people can compare."""
    recipe = json.loads(recipe_of(plan))
    return {
        "source": " ".join(_absolute(spec) for spec in source.specs),
        "preprocess": json.dumps(recipe["pixels"], sort_keys=True),
        "embedder": f"{plan.embedder.name} {recipe['model']}",
        "sink": f"{_place(config)} collection {config.collection}"
        + (f" partition {config.partition}" * bool(config.partition)),
    }


def settings_of(config: ServiceConfig, source: FileSource) -> dict[str, Any]:
    """What another run needs to go on: the sources, and the settings as they were given, without secrets."""
    unsaid = {"token", "job", "update", "accept_changes", "mode"}
    given = config.model_dump(mode="json", include=config.model_fields_set - unsaid)
    return {"sources": [_absolute(spec) for spec in source.specs], "config": {**given, "to": _place(config)}}


def _absolute(spec: str) -> str:
    """A source as it can be named from any folder."""
    if spec == "-":
        return spec
    mark = "@" if spec.startswith("@") else ""
    return mark + os.path.join(os.getcwd(), spec.removeprefix(mark))


def _place(config: ServiceConfig) -> str:
    """Where the rows go, as it can be named from any folder, without credentials."""
    to = config.to or ""
    scheme, mark, rest = to.partition("://")
    if mark:
        return f"{scheme}://{rest.rpartition('@')[2]}"
    bulk = "bulk:" if to.startswith("bulk:") else ""
    return bulk + str(Path(to.removeprefix(bulk)).expanduser().absolute())


def _change(change: Difference) -> str:
    """What differs, in words; of pixels only the settings that do."""
    there, here = change.there or "nothing", change.here or "nothing"
    if change.name == "preprocess" and change.there and change.here:
        before, now = json.loads(there), json.loads(here)
        names = [name for name in now if before.get(name) != now[name]]
        there = ", ".join(f"{name} {before.get(name)}" for name in names)
        here = ", ".join(f"{name} {now[name]}" for name in names)
    return f"{change.name} was {there}, and is {here} now"


def _attempts_in(path: Path) -> dict[str, int]:
    return {letter.key: letter.attempts for letter in read_dead_letters(path)}


def latest_letters(path: Path) -> dict[str, DeadLetter]:
    """The newest dead letter of each key."""
    return {letter.key: letter for letter in read_dead_letters(path)}


def undo_dead(folder: JobFolder, keys: Iterable[str]) -> int:
    """Have dead entries done again in the next run; returns how many there were."""
    wanted = set(keys)
    found = [
        ordinal
        for span in list(folder.states.ranges(Outcome.DEAD))
        for ordinal, entry in zip(span, folder.snapshot.entries(span.start, span.stop), strict=True)
        if key_of(entry.name) in wanted
    ]
    folder.undo(found)
    return len(found)


def opened(path: Path) -> closing[JobFolder]:
    """A job folder that must be there.

    Raises:
        ConfigError: there is none.
    """
    if not (path / "job.json").is_file():
        raise ConfigError(f"{path} is no job folder: penstock embed ... --job {path} makes one")
    return closing(JobFolder.create_or_open(path))
