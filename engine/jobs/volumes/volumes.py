"""The volumes of a job: how many of their pages are done, and which can be published."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ....errors import FailureBudgetError, ItemError, PenstockError, PublishConflictError, SinkError, StoreChangedError
from ...core.budget import Budget, FailureBudget
from .pages import ImageTask, Record, Row, Written


class Writes(Protocol):
    """What a writer does, for one volume. Called by one thread at a time."""

    def published(self) -> Mapping[str, Any] | None:
        """What the volume's manifest says; None as long as it is not published."""
        ...

    def write(self, records: Sequence[Record], /) -> None:
        """Take records, for good: when it returns, a process that dies has lost none of them."""
        ...

    def publish(self, pages: int, dead: int, /) -> Mapping[str, Any] | None:
        """All pages of the volume are done: let readers see what there is of it, all at once.

        Args:
            pages: of the volume, those that failed among them.
            dead: that failed.

        Returns:
            What its manifest says; None where there was nothing to publish.

        Raises:
            PublishConflictError: somebody else has published this volume, which is no fault of the others.
            StoreChangedError: some of its records have been taken away, likewise.
            SinkError: it cannot be published.
        """
        ...

    def close(self) -> None:
        """Let go of everything. What was not published is not seen by readers. May be called twice."""
        ...


@dataclass(slots=True)
class Volume:
    """One volume.

    Attributes:
        name: its `volume_id`.
        pages: how many it has; None while nobody knows.
        done: pages whose fate is known; dead: of these, those that failed.
        manifest: what was published; None before, and where there is nothing to publish.
        error: why it was not published, though others may be; None: there is no reason.
        is_closed: whether nothing is to be done about it any more.
    """

    name: str
    pages: int | None = None
    done: int = 0
    dead: int = 0
    manifest: Mapping[str, Any] | None = None
    error: PenstockError | FailureBudgetError | None = None
    is_closed: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether all of its pages are done."""
        return self.pages is not None and self.done >= self.pages


class Volumes:
    """The volumes of a job, with a writer for each that is under way.

    Args:
        writer: makes the writer of a volume.
        limit: how many pages of a volume may be dead: with more it is not published. See `FailureBudget`.
        published: called for each volume that was published, with its name.
    """

    def __init__(
        self, writer: Callable[[str], Writes], limit: Budget = -1, published: Callable[[str], None] = lambda _: None
    ) -> None:
        self._make, self._limit, self._published = writer, limit, published
        self._writers: dict[str, Writes] = {}
        self._mutex = threading.RLock()
        self._whole: list[Volume] = []  # and not published yet
        self.all: dict[str, Volume] = {}

    def volume(self, name: str) -> Volume:
        """The volume of this name, known from now on."""
        with self._mutex:
            found = self.all.get(name)
            if found is None:
                found = self.all[name] = Volume(name)
            return found

    def look(self, name: str) -> bool:
        """Whether a volume is published already."""
        volume = self.volume(name)
        volume.manifest = self._writer(name).published()
        volume.is_closed = volume.manifest is not None
        if volume.is_closed:
            self._close(name)
        return volume.is_closed

    def forget(self, name: str) -> None:
        """What was found out about a volume does not count any more."""
        self._close(name)
        with self._mutex:
            self.all.pop(name, None)

    def has(self, name: str, pages: int, done: int = 0, dead: int = 0) -> None:
        """A volume has so many pages, of which so many were done before this run."""
        with self._mutex:
            volume = self.volume(name)
            volume.pages = pages
            volume.done += done
            volume.dead += dead
            self._note(volume)

    def write(self, rows: list[Row]) -> Written:
        """Have the writers take rows, each those of its volume.

        Raises:
            SinkError: one of them cannot; whatever it raised, that is no fault of the pages.
        """
        by_volume: dict[str, list[Record]] = {}
        for row in rows:
            by_volume.setdefault(row.task.volume_id, []).append(row.record)
        for name, records in by_volume.items():
            try:
                self._writer(name).write(records)
            except PenstockError:
                raise
            except Exception as error:
                message = f"volume {name!r}: its writer failed: {type(error).__name__}: {error}"
                raise SinkError(message) from error
        return Written([row.task for row in rows])

    def done(self, tasks: Sequence[ImageTask], *, dead: bool = False) -> None:
        """The fate of these pages is known."""
        with self._mutex:
            for task in tasks:
                volume = self.volume(task.volume_id)
                volume.done += 1
                volume.dead += dead
                self._note(volume)

    def publish(self) -> list[Volume]:
        """Publish the volumes whose pages are all done; in the thread that reads the pipeline.

        Returns:
            Those that there were, of which some may have failed: see `Volume.error`.

        Raises:
            SinkError: the place refuses.
        """
        with self._mutex:
            whole, self._whole = [volume for volume in self._whole if not volume.is_closed], []
        for volume in whole:
            assert volume.pages is not None
            volume.is_closed = True
            try:
                self._check_budget(volume, volume.pages)
                volume.manifest = self._writer(volume.name).publish(volume.pages, volume.dead)
            except (FailureBudgetError, PublishConflictError, StoreChangedError) as error:
                volume.error = error
            self._close(volume.name)
            if volume.manifest is not None:
                self._published(volume.name)
        return whole

    @property
    def errors(self) -> list[PenstockError | FailureBudgetError]:
        """Why volumes could not be published, of each of them."""
        with self._mutex:
            return [volume.error for volume in self.all.values() if volume.error is not None]

    @property
    def counts(self) -> dict[str, Any]:
        """How many volumes there are, and are published."""
        with self._mutex:
            volumes = list(self.all.values())
        return {"all": len(volumes), "published": sum(volume.manifest is not None for volume in volumes)}

    @property
    def figures(self) -> dict[str, Any]:
        """For reports: `counts`, and what there is to know of each volume."""
        with self._mutex:
            volumes = list(self.all.values())
        each = {
            volume.name: {
                "pages": volume.pages,
                "done": volume.done,
                "dead": volume.dead,
                "published": volume.manifest is not None,
                **({} if volume.error is None else {"error": _told(volume.error)}),
            }
            for volume in volumes
        }
        return {**self.counts, "each": each}

    def close(self) -> None:
        """Close all writers."""
        for name in list(self._writers):
            self._close(name)

    def _check_budget(self, volume: Volume, pages: int) -> None:
        budget = FailureBudget(self._limit)
        budget.count(pages)
        budget.fail(volume.dead)
        if budget.is_exceeded:
            message = f"volume {volume.name!r} is not published: {budget}; mend them (penstock retry), or allow more"
            raise FailureBudgetError(message, [ItemError("pages of it are dead letters")])

    def _note(self, volume: Volume) -> None:
        if volume.is_whole and not volume.is_closed and not any(volume is other for other in self._whole):
            self._whole.append(volume)

    def _writer(self, name: str) -> Writes:
        with self._mutex:
            found = self._writers.get(name)
            if found is None:
                found = self._writers[name] = self._make(name)
            return found

    def _close(self, name: str) -> None:
        with self._mutex:
            writer = self._writers.pop(name, None)
        if writer is not None:
            writer.close()


def _told(error: PenstockError | FailureBudgetError) -> str:
    """What an error says, without what groups of them add."""
    return error.message if isinstance(error, FailureBudgetError) else str(error)
