"""A job that keeps books: what its source held, what became of each entry, and what a later run has to do.

The order makes it safe to die at any moment: a row is acknowledged by the store, then recorded as written; a dead
letter is in its file, then recorded as dead. What is recorded is never done again; what is not is done again, and
writes over itself. Only what was in flight is done twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from ....errors import AccountingError, ConfigError, FailureBudgetError, ItemError, JournalError
from ....sinks import DeadLetters, Found, read_dead_letters
from ... import Report
from ...config.model import ServiceConfig
from ...core.budget import Budget, FailureBudget, Tally
from ...core.policies import tolerated
from ...journal import Counts, Entry, Event, JobFolder, ListingDiff, Outcome
from ...sources import MANY, Broken, Filtered, Item, Source, key_of
from .children import Children, Done
from .dead_letters import NO_LETTER, clear_letters, letter_key, stages_of
from .drive import Interrupt
from .fingerprints import fingerprints, settings_of, what_differs
from .kept_sources import keep_sources
from .listing import ListingInterruptedError, entries_of, entry_at
from .output_paths import dead_letters_path
from .plan import Plan
from .store_check import REDONE, STORE, Known, checked, id_of, known_of

_logger = logging.getLogger(__name__)

_SYNC_SECONDS = 1.0
"""What a power failure may cost: outcomes of so many seconds are found out again. A dead process costs none."""


class JobCheckpoint:
    """The books of the job in ``config.job``, for one run. Used as a context manager.

    Args:
        config: with ``job``.
        plan: what makes the vectors.
        source: what the job is about; asked for its entries in the first run, and when they are to be compared.
        interrupt: ends the listing early. Half a listing does not count: then nothing is to be done in this run.

    Attributes:
        changes: what a new listing has found, in this run; None: there was none.

    Raises:
        JobLockedError: another process runs this job.
        ConfigError: the folder is of a job with other settings, and ``accept_changes`` is not set.
        JournalError: the books cannot be kept.
    """

    def __init__(self, config: ServiceConfig, plan: Plan, source: Source, interrupt: Interrupt | None = None) -> None:
        assert config.job is not None
        here, settings = fingerprints(config, plan, source), settings_of(config, source)  # may refuse: no folder then
        self._source = source
        self._folder = JobFolder.create_or_open(config.job)
        self._synced = time.monotonic()
        self._children = Children()
        self._budgets, self._gathered_at = config.budgets, config.gathered_at
        self._store_notes: Callable[[], Sequence[str]] | None = None
        self._recording = threading.Lock()
        self._accepts_store = config.accept_store
        self.changes: ListingDiff | None = None
        try:
            with suppress(ListingInterruptedError):
                self._begin(config, here, settings, source, lambda: interrupt is not None and interrupt.requested)
            self._stores = known_of(self._folder.events)
            self._before = self._folder.counts
            self._letters = dead_letters_path(config)
            self._attempts = _attempts_in(self._letters)
            self._again: dict[int, str] = {}  # what has a letter and is done again: its key
            self._healed: set[str] = set()
        except BaseException:
            self._folder.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._attempts:
                clear_letters(self._letters, self._folder, self._healed)
        except (OSError, JournalError) as error:
            _logger.warning("%s still lists what is done by now: %s", self._letters, error)
        finally:
            self._folder.close()

    @property
    def counts(self) -> Counts:
        """Of all runs together."""
        return self._folder.counts

    @property
    def job_id(self) -> str:
        """32 hex digits, the same in every run."""
        return self._folder.manifest.job

    @property
    def finished(self) -> bool:
        """Whether nothing remains."""
        return self._folder.finished

    @property
    def begun(self) -> bool:
        """Whether an earlier run has written rows, also such as a newer listing, or the user, has forgotten."""
        forgotten = (event.get("written", 0) for event in self._folder.events if event["event"] in {"renewed", REDONE})
        return self.has_rows or any(forgotten)

    @property
    def has_rows(self) -> bool:
        """Whether a store has acknowledged rows in an earlier run."""
        return self._before.written > 0 or next(self._folder.states.acknowledged(), None) is not None

    @property
    def accepted_pixels(self) -> bool:
        """Whether this run or an earlier one has accepted other pixels than the job was begun with."""
        accepted = (event["changes"] for event in self._folder.events if event["event"] == "accepted")
        return any(change["name"] == "preprocess" for changes in accepted for change in changes)

    def entries(self) -> Iterator[Item | Filtered | Broken]:
        """What remains, in the order of the listing. What is no picture is recorded as it passes."""
        for ordinal, entry in self._folder.entries(Outcome.UNDONE):
            item = entry_at(self._source, ordinal, entry)
            if self._attempts and (key := letter_key(key_of(entry.name))) in self._attempts:
                self._again[ordinal] = key
            if isinstance(item, Filtered):
                self._folder.filtered([ordinal])
                self._heal(ordinal)
            yield item

    def listing(self, span: range | None = None) -> Iterator[tuple[int, Entry, Outcome]]:
        """All entries in the order of the listing, with their ordinals and what has become of each so far.

        Args:
            span: only these ordinals.
        """
        if self._folder.has_snapshot:
            snapshot, states = self._folder.snapshot, self._folder.states
            for ordinal, entry in snapshot.numbered([range(len(snapshot)) if span is None else span]):
                yield ordinal, entry, states[ordinal]

    def filtered(self) -> Iterator[tuple[str, str]]:
        """The key of each entry that was left out, in this run or an earlier one, and why."""
        return ((key_of(entry.name), entry.tag) for _, entry in self._folder.entries(Outcome.FILTERED))

    @property
    def remaining(self) -> int:
        """How many entries this run has to do."""
        return self._before.remaining

    @property
    def is_full_run(self) -> bool:
        """Whether that is the whole listing."""
        return self._before.remaining == self._before.total

    @property
    def events(self) -> Sequence[Event]:
        """What was recorded beside outcomes, oldest first."""
        return self._folder.events

    def add_event(self, event: str, **fields: Any) -> None:
        """Record something beside outcomes, as JSON values."""
        self._folder.add_event(event, **fields)

    def starts(self) -> None:
        """Record that this run begins its work: `penstock status` counts its pace from here."""
        self._folder.add_event("started", done=self._before.total - self._before.remaining)

    # -- recording ----------------------------------------------------------------------------------------------------

    def check_store(self, found: Found | None, where: str, number: int = 0, rows: int | None = None) -> None:
        """Refuse to go on where a store does not hold what these books say; see `store_check.checked`.

        Args:
            found: what is there.
            where: it is, for people.
            number: of the store, where rows go into several.
            rows: that were written; None: one for each entry that is written.

        Raises:
            StoreChangedError: it does not.
        """
        known, accept = self._stores[number], self._accepts_store
        self._know(number, checked(self._folder, known, found, where, number=number, accept=accept, rows=rows))

    def writes_to(self, notes: Callable[[], Sequence[str]]) -> None:
        """Rows go to collections with these notes from now on; asked for when the first of them are there."""
        self._store_notes = notes

    @property
    def children(self) -> Children:
        """Entries that have more than themselves to be done: begun, given children, and closed by whoever makes them.

        What `written` and `dead` are told of such an entry is about one of its children.
        """
        return self._children

    def close(self, ordinal: int) -> None:
        """An entry that was begun has all its children; see `Children.close`."""
        self._record(self._children.close(ordinal))

    def written(self, ordinals: Sequence[int]) -> None:
        """The store has acknowledged a row of each. In whose collection they are is recorded before them."""
        self._record_stores()
        self._record(self._children.written(ordinals))

    def acknowledged(self, number: int, ordinals: Sequence[int]) -> None:
        """One of several stores has acknowledged a row of each. From any thread. Of entries with children nothing is
        recorded: they are done again as a whole.
        """
        self._record_stores()
        self._folder.acknowledged(number, [each for each in ordinals if not self._children.is_begun(each)])

    def acknowledged_by(self, ordinal: int) -> int:
        """The stores that have acknowledged the row of an entry already: the n-th by the bit ``1 << n``."""
        return self._folder.states.acknowledged_by(ordinal)

    def _record_stores(self) -> None:
        with self._recording:
            if self._store_notes:
                for number, note in enumerate(self._store_notes()):
                    self._know(number, replace(self._stores[number], id=id_of(note)))
                self._store_notes = None

    def dead(self, ordinals: Sequence[int]) -> None:
        """The dead letters of these are written."""
        self._record(self._children.dead(ordinals))

    def _record(self, done: Done) -> None:
        if done.written:
            self._folder.written(done.written)
            for ordinal in done.written if self._again else ():
                self._heal(ordinal)
        if done.dead:
            self._folder.dead(done.dead)

    def _heal(self, ordinal: int) -> None:
        if ordinal in self._again:
            self._healed.add(self._again.pop(ordinal))

    def earlier(self, stages: Sequence[str] | None = None) -> dict[str, Tally]:
        """What earlier runs did in each stage, given in their order. Whose letter is lost counts as done everywhere,
        and what died of a part of it as failed where its parts are gathered.
        """
        died = stages_of(self._letters, (entry.name for _, entry in self._folder.entries(Outcome.DEAD)))
        stages = stages or [*self._budgets]
        if self._gathered_at is not None:
            died[self._gathered_at] += sum(died.pop(stage) for stage in died.keys() - {*stages, NO_LETTER})
        tallies: dict[str, Tally] = {}
        reached = self._before.written + died.total()
        for stage in stages:
            tallies[stage] = Tally(reached, died[stage])
            reached -= died[stage]
        return tallies

    def judge(self, config: ServiceConfig) -> None:
        """Judge a job of which nothing remains as its last run was judged at its end.

        Raises:
            FailureBudgetError: more pictures failed than a rate allows.
        """
        own: dict[str, Budget | None] = {stage: tolerated(policy) for stage, policy in config.policies.items()}
        for stage, tally in self.earlier().items():
            limit = own.get(self._budgets[stage])
            limit = config.max_failures if limit is None else limit
            budget = FailureBudget(limit, tally)
            if isinstance(limit, Fraction) and budget.is_exceeded:
                raise FailureBudgetError(f"stage {stage!r}: {budget}", [ItemError("items of earlier runs failed")])

    def attempts(self, key: str) -> int:
        """How often earlier runs have tried an item that they gave up."""
        return self._attempts.get(letter_key(key), 0)

    def flush(self, letters: DeadLetters, first: Callable[[], object] = lambda: None) -> bool:
        """Called often, from a thread that may wait: about once a second puts the letters on the disk, then the records
        that vouch for them. `first` puts there what the records vouch for besides. Says whether it did.
        """
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            first()
            letters.sync()
            self._folder.sync()
            self._synced = time.monotonic()
            return True
        return False

    def check(self, report: Report, interrupted: bool) -> None:
        """Hold what this run recorded against what its engine counted, at its end.

        Args:
            report: of a run that has not failed.
            interrupted: whether it was asked to end early; else nothing may remain.

        Raises:
            AccountingError: they differ.
        """
        before, after, counted = self._before, self._folder.counts, report.accounting
        filtered = after.filtered - before.filtered
        found = {
            "written": (after.written - before.written, counted.written),
            # Recorded as they are drawn: an early end may leave the last of them between the source and its stage.
            "filtered": (filtered, max(filtered, counted.filtered) if interrupted else counted.filtered),
            "dead": (after.dead - before.dead, counted.dead),
            "remaining": (after.remaining, after.remaining if interrupted else counted.in_flight),
        }
        wrong = [
            f"{name}: {kept} in the journal, {seen} counted" for name, (kept, seen) in found.items() if kept != seen
        ]
        if wrong:
            raise AccountingError(f"{self._folder.path}: the journal and the stages disagree: {'; '.join(wrong)}")

    def summary(self) -> dict[str, Any]:
        """For the report: the whole job's books."""
        counts = self._folder.counts
        update = {} if self.changes is None else {"update": asdict(self.changes)}
        return {
            **update,
            "folder": self._folder.path,
            "entries": counts.total,
            "written": counts.written,
            "filtered": counts.filtered,
            "dead": counts.dead,
            "remaining": counts.remaining,
        }

    def _know(self, number: int, store: Known) -> None:
        if store != self._stores[number]:
            self._folder.add_event(STORE, **asdict(store), **({"store": number} if number else {}))
            self._stores[number] = store

    # -- beginning ----------------------------------------------------------------------------------------------------

    def _begin(
        self,
        config: ServiceConfig,
        here: Mapping[str, str],
        settings: dict[str, Any],
        source: Source,
        stopped: Callable[[], bool],
    ) -> None:
        """Refuse to go on with another job's books, and see to the listing."""
        different = self._folder.check(here)
        changed = {change.name for change in different}
        if different and not config.accept_changes:
            raise ConfigError(
                f"the job in {self._folder.path} was begun otherwise: {what_differs(different)}. Take another folder"
                " for another job, or go on with --accept-changes: what is written stays as it is"
            )
        if len(source.specs) > MANY and (different or not self._folder.fingerprints):
            keep_sources(self._folder.path, source.portable_specs())
        if not self._folder.fingerprints:
            self._folder.accept(here, settings)
        if not self._folder.has_snapshot:
            self._folder.write_snapshot(entries_of(source, stopped), lambda: source.order, sortable=source.sortable)
        elif config.update or "source" in changed:
            self.changes = self._folder.renew_snapshot(
                entries_of(source, stopped), lambda: source.order, sortable=source.sortable
            )
        if different or settings != self._folder.manifest.settings:  # those of the latest run are what `resume` takes
            self._folder.accept(here, settings)  # behind the listing: a source that is accepted has been listed
        self._accepts_store |= "sink" in changed
        if config.redo and (rows := self._folder.counts.written):
            self._folder.add_event(REDONE, written=rows)  # first: what is forgotten stays this job's, see begun
            self._folder.undo([*self._folder.states.ranges(Outcome.WRITTEN)])
        if config.redo or "sink" in changed:
            self._folder.undo([*self._folder.states.acknowledged()])  # the numbers were those of other stores


def _attempts_in(path: Path) -> dict[str, int]:
    return {letter.key: letter.attempts for letter in read_dead_letters(path)}
