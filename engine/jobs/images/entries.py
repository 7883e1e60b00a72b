"""What a job is about: the items of a source or pictures as they come, and batches of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ....errors import ConfigError
from ....preprocess.worker.reader import REMOTE_THREADS
from ....sinks import row_key
from ... import NOTHING, ItemFailure, Outcome
from ...config.model import ServiceConfig
from ...machine.resources import usable_cores
from ...sources import Broken, Filtered, Item, Source, key_of
from ..common.fetching import fetched
from ..common.payloads import BATCH_BYTES, nbytes_of
from ..common.source_factory import make_source
from .batches import Batch, Picture, PictureFailure
from .inputs import pictures_of
from .keyed_pictures import KeyedPictures

_AHEAD = 1024
"""Most entries that are no pictures to pass by before they are accounted for."""

_MOST_FETCHES = 64
"""Reads of references that this process has in flight: more threads make each slower."""

Given = str | os.PathLike[str] | Iterable[Any] | Callable[[], Iterable[Any]]
"""What `embed_images` takes as its source."""


def config_of(config: ServiceConfig | None, settings: Mapping[str, Any]) -> ServiceConfig:
    """The configuration that a call was given, whole or as settings.

    Raises:
        ConfigError: a setting is wrong, or both were given.
    """
    if config is not None and settings:
        raise ConfigError(f"give a config or settings, not both (config, and {', '.join(settings)})")
    return config or ServiceConfig(**settings)


def job_source(config: ServiceConfig, source: Given, call: str, *, stable_keys: bool = False) -> Iterable[Any]:
    """A source where one is given or named, by one text or a sequence of them; else the pictures, as they come."""
    if stable_keys:
        return KeyedPictures(source)
    if isinstance(source, Source):
        return source
    if isinstance(source, (str, os.PathLike)):
        return make_source(config, [_named(source)])
    if isinstance(source, Sequence) and all(isinstance(part, (str, os.PathLike)) for part in source):
        return make_source(config, [_named(part) for part in source])
    pictures = pictures_of(cast("Iterable[Any]", source), None, None, call)
    if config.job is not None:
        raise ConfigError(
            "job: keeps the books of files and other sources; pictures that come from an iterator or as bytes or arrays"
            " have nothing that tells them apart from run to run: give (key, picture) pairs with stable_keys=True, a"
            " folder or a list of paths, or leave job out"
        )
    return pictures


def _named(source: str | os.PathLike[str]) -> str:
    """A source as the command line would get it: there the shell has replaced a leading ``~``."""
    return os.fsdecode(os.path.expanduser(os.fspath(source)))  # noqa: PTH111  (a glob or @list is no Path)


def in_memory(config: ServiceConfig, source: Iterable[Any]) -> bool:
    """Whether pictures come as bytes or arrays, which then count."""
    return not isinstance(source, Source) or source.in_memory or _fetches(config, source)


def _fetches(config: ServiceConfig, source: Iterable[Any]) -> bool:
    """Whether this process reads references, because its workers may not."""
    return config.sandbox and isinstance(source, Source) and source.locator is not None


def readable(
    config: ServiceConfig, source: Iterable[Any], entries: Iterable[Any], most: int, room: int
) -> Iterable[Any]:
    """The same entries as workers can take them: with what their source has besides, and where workers may not open
    references, with what this process reads for them.

    Args:
        config: of the job.
        source: what the entries are of.
        entries: to be done.
        most: bytes of a picture.
        room: bytes that may be read ahead.
    """
    if isinstance(source, Source):
        entries = source.loaded(entries, most)
    if not _fetches(config, source):
        return entries
    each = REMOTE_THREADS if config.threads is None else max(1, config.threads)
    threads = min(_MOST_FETCHES, each * (config.workers or usable_cores()))
    return fetched(entries, most, threads, room, config.policies["preprocess"])


def batches_of(entries: Iterable[Any], size: int, most: int = BATCH_BYTES) -> Iterator[Outcome]:
    """Batches of pictures, with what was passed by on the way: filtered, or broken before it could be a picture.

    Args:
        entries: of a source, or pictures.
        size: pictures of a batch at most.
        most: bytes of a batch at most, of what is in memory; a larger picture is a batch of its own.
    """
    next_ = _Next()
    for entry in entries:
        picture = _picture(entry) if isinstance(entry, Item) else entry
        match picture:
            case Picture():
                nbytes = nbytes_of(picture.source)
                if next_.pictures and next_.nbytes + nbytes > most:
                    yield next_.outcome()
                    next_ = _Next()
                next_.pictures.append(picture)
                next_.nbytes += nbytes
            case Filtered():
                next_.filtered += 1
            case Broken():
                next_.broken.append(PictureFailure(picture.key, picture.error, ordinal=picture.ordinal))
            case _:
                raise ConfigError(f"a source must yield items or pictures, not {type(entry).__name__}")
        if len(next_.pictures) == size or next_.nbytes >= most or next_.passed >= _AHEAD:
            yield next_.outcome()
            next_ = _Next()
    if next_.pictures or next_.passed:
        yield next_.outcome()


@dataclass(slots=True)
class _Next:
    """What the next batch will be, as far as it has come."""

    pictures: list[Picture] = field(default_factory=list[Picture])
    nbytes: int = 0
    broken: list[ItemFailure] = field(default_factory=list[ItemFailure])
    filtered: int = 0

    @property
    def passed(self) -> int:
        return self.filtered + len(self.broken)

    def outcome(self) -> Outcome:
        batch = Batch(self.pictures) if self.pictures else NOTHING
        return Outcome(batch, failures=self.broken, dropped=self.filtered)


def _picture(item: Item) -> Picture:
    source = item.path if item.path is not None else item.reference or (b"" if item.data is None else item.data)
    name = item.path if item.path is not None and key_of(item.path) == item.key else item.key
    return Picture(item.key, row_key(name), source, item.key, dict(item.metadata), item.ordinal)
