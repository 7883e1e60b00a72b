"""The books of a job on volumes: which volumes and pages there are, and what is done of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ....errors import SourceError
from ....formatting import printable
from ....sinks import DeadLetters
from ... import NOTHING, Outcome
from ...config.volumes import PipelineConfig
from ...journal import Kind, job_id
from ...journal import Outcome as Fate
from ...sources import Broken, Filtered, Item, key_of
from ...sources.entries import Entry
from ..common.checkpoint import JobCheckpoint
from ..common.drive import Interrupt
from .batcher import GpuBatcher
from .letters import letters_path
from .pages import ImageTask, PageFailure
from .places import store_options
from .source import VolumeRoot, VolumeSource, failed_task, task_of
from .standing import PUBLISHED, REOPENED, published_in
from .volumes import Volumes, Writes
from .writer import writer_for

_logger = logging.getLogger(__name__)


class Books:
    """Which volumes and pages there are, and what is done of them; with a job's folder or without.

    Args:
        cfg: of the job.
        specs: of its volumes.
        batcher: says what the vectors are made by.

    Attributes:
        volumes: how far each is.
        checkpoint: None where no books are kept.
        letters: where dead letters go.
    """

    def __init__(self, cfg: PipelineConfig, specs: Sequence[str], batcher: GpuBatcher) -> None:
        self._cfg, self._batcher = cfg, batcher
        self.volumes = Volumes(self._writer, cfg.max_failures, self._was_published)
        self.source = VolumeSource(specs, self._is_others, store_options(cfg))
        self._spans: dict[str, range] = {}  # the ordinals of each volume
        self.checkpoint: JobCheckpoint | None = None
        self._job_id = ""
        path = letters_path(cfg)
        assert path is not None
        self.letters = DeadLetters(path)

    def open(self, interrupt: Interrupt | None) -> None:
        """List the volumes; in a job's folder once, and take over what is done.

        Raises:
            SourceError: there is no such volume, none of them has pages, or they cannot be listed.
            ConfigError: the job was begun otherwise.
        """
        if self._cfg.job is None:
            self._remove_old_letters()
            _ = self.source.roots  # says at once what is not there
            return
        self._job_id = job_id(self._cfg.job)
        self.checkpoint = JobCheckpoint(self._cfg, self._batcher.plan, self.source, interrupt)
        if not self.checkpoint.counts.total and not (interrupt and interrupt.requested):
            raise SourceError(self.source.emptiness())
        self._job_id = self.checkpoint.job_id
        self.volumes.close()  # what was looked at while listing had no job yet
        self._take_over()

    @property
    def is_finished(self) -> bool:
        """Whether nothing remains, and all that can be published is. What was left unpublished is published here."""
        assert self.checkpoint is not None
        if not self.checkpoint.finished:
            return False
        self.volumes.publish()
        return True

    @property
    def figures(self) -> dict[str, Any]:
        """For the report of a run without stages."""
        job = {"job": self.checkpoint.summary()} if self.checkpoint else {}
        return {"volumes": self.volumes.figures, **job}

    def tasks(self) -> Iterator[ImageTask | Outcome]:
        """What is to be done, in order."""
        return self._remaining(self.checkpoint) if self.checkpoint else self._all()

    def close(self) -> None:
        """Close the books."""
        self.volumes.close()
        self.letters.close()
        if self.checkpoint:
            self.checkpoint.__exit__(None, None, None)

    def _writer(self, name: str) -> Writes:
        pages = partial(self._written, name) if self.checkpoint else None
        return writer_for(self._cfg, name, self._job_id, self._batcher.recipe, pages)

    def _was_published(self, name: str) -> None:
        if self.checkpoint:
            self.checkpoint.add_event(PUBLISHED, volume=name)

    def _is_others(self, name: str) -> bool:
        """Whether a volume is published, and not by this job: then it is left alone."""
        self.volumes.look(name)
        manifest = self.volumes.volume(name).manifest
        if manifest is None or manifest["job"] != self._job_id:
            return manifest is not None
        self.volumes.forget(name)
        return False

    def _written(self, name: str) -> dict[str, int]:
        """The pages of a volume that have a row, by key, each with its number."""
        assert self.checkpoint is not None
        listed = self.checkpoint.listing(self._spans.get(name, range(0)))
        pages = enumerate((entry, fate) for _, entry, fate in listed if entry.kind is not Kind.FILTERED)
        return {key_of(entry.name): page for page, (entry, fate) in pages if fate is Fate.WRITTEN}

    def _remove_old_letters(self) -> None:
        path = self.letters.path
        if path.exists():
            path.replace(path.with_suffix(".previous.jsonl"))

    def _take_over(self) -> None:
        """What earlier runs have done, volume by volume."""
        assert self.checkpoint is not None
        found: dict[str, _Tally] = {}
        for ordinal, entry, fate in self.checkpoint.listing():
            if entry.kind is not Kind.FILTERED:
                name = self.source.root_of(entry.name).name
                tally = found.setdefault(name, _Tally())
                self._spans[name] = range(self._spans.get(name, range(ordinal, 0)).start, ordinal + 1)
                tally.pages += 1
                tally.done += fate in (Fate.WRITTEN, Fate.DEAD)
                tally.dead += fate is Fate.DEAD
        known = published_in(self.checkpoint.events)
        for name, tally in found.items():
            self.volumes.has(name, tally.pages, tally.done, tally.dead)
            is_published = tally.done == tally.pages and self.volumes.look(name)
            if is_published != (name in known):
                self.checkpoint.add_event(PUBLISHED if is_published else REOPENED, volume=name)

    def _remaining(self, checkpoint: JobCheckpoint) -> Iterator[ImageTask | Outcome]:
        places = self._places(checkpoint)
        for entry in checkpoint.entries():
            if isinstance(entry, Filtered):
                yield Outcome(NOTHING, dropped=1)
                continue
            ordinal, root, page = next(place for place in places if place[0] == entry.ordinal)
            yield _task(replace(entry, ordinal=ordinal), root, page)

    def _places(self, checkpoint: JobCheckpoint) -> Iterator[tuple[int, VolumeRoot, int]]:
        """The ordinal of each page, its volume, and its number in it."""
        root, page = VolumeRoot("", ""), 0
        for ordinal, entry, _ in checkpoint.listing():
            if entry.kind is not Kind.FILTERED:
                here = self.source.root_of(entry.name)
                root, page = here, page + 1 if here == root else 0
                yield ordinal, root, page

    def _all(self) -> Iterator[ImageTask | Outcome]:
        roots, pages, last = self.source.roots, dict[str, int](), ""
        for root, entry in self.source.by_volume():
            if last not in ("", root.name):
                self.volumes.has(last, pages.get(last, 0))
            last = root.name
            if isinstance(entry, Filtered):
                yield Outcome(NOTHING, dropped=1)
                continue
            pages[root.name] = pages.get(root.name, 0) + 1
            yield _task(entry, root, pages[root.name] - 1)
        if last:
            self.volumes.has(last, pages.get(last, 0))
        done = {volume.name for volume in self.volumes.all.values() if volume.manifest is not None}
        empty = [root.name for root in roots if root.name not in pages and root.name not in done]
        if len(empty) == len(roots):
            raise SourceError(self.source.emptiness())
        if empty:
            _logger.warning("volumes without pages: %s", ", ".join(map(printable, empty)))


@dataclass(slots=True)
class _Tally:
    pages: int = 0
    done: int = 0
    dead: int = 0


def _task(entry: Entry, root: VolumeRoot, page: int) -> ImageTask | Outcome:
    if isinstance(entry, Item):
        return task_of(entry, root, page)
    assert isinstance(entry, Broken)
    failure = PageFailure(entry.key, entry.error, task=failed_task(entry, root, page))
    return Outcome(NOTHING, failures=[failure])
