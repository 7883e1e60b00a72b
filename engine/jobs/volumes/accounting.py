"""How the engine counts what is on its way in a volume, and what is done about pages that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ....errors import ItemError, PenstockError
from ....formatting import printable
from ... import ItemFailure
from .pages import DecodedFrame, FetchedPage, ImageTask, PageFailure, Patch, Written, tasks_of

Failed = Callable[[str, ImageTask, ItemFailure], None]
"""Called with the stage, the page, and why it is a dead letter."""


class VolumeValues:
    """The engine's view of a volume: pages are items, and so are patches, as long as their page waits for them.

    Args:
        failed: called for each page that fails, in the thread that reads the pipeline.
        gone: called for each page that the engine lets go of; must return at once.
        keeps_books: whether a later run does again what the end of this one has left: what ends the job is no dead
            letter of the pages that it met.
    """

    def __init__(
        self, failed: Failed, *, gone: Callable[[ImageTask], None] = lambda _: None, keeps_books: bool = False
    ) -> None:
        self._failed = failed
        self._gone = gone
        self._keeps_books = keeps_books

    def units(self, value: Any) -> int:
        """Pages or patches in a value."""
        if isinstance(value, Written):
            return len(value.tasks)
        return sum(map(self.units, value)) if isinstance(value, list) else 1  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]

    def nbytes(self, value: Any) -> int:
        """Bytes of files and of decoded pages; a patch has its page's."""
        if isinstance(value, FetchedPage):
            return len(value.data)
        return value.pixels.nbytes if isinstance(value, DecodedFrame) else 0

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> Callable[[], None] | None:
        """Which pages failed, to be recorded where one may wait."""
        found: list[tuple[ImageTask, ItemFailure]] = []
        for failure in failures:
            if self._keeps_books and _is_about_the_job(failure.error):
                continue
            tasks = [failure.task] if isinstance(failure, PageFailure) else tasks_of(value)
            found += [(task, failure) for task in tasks]
        return partial(self._record, stage, found) if found else None

    def _record(self, stage: str, found: Sequence[tuple[ImageTask, ItemFailure]]) -> None:
        for task, failure in found:
            self._failed(stage, task, failure)

    def discard(self, value: Any) -> None:
        """What it took of the memory is free."""
        for task in tasks_of(value):
            self._gone(task)

    def part(self, value: Any, failures: Sequence[ItemFailure]) -> Any:
        """A batch is tried again as a whole."""
        del value, failures

    def last_attempt(self, value: Any) -> None:
        """An embedder that fails of something transient finds out then which patches are to blame."""
        for patch in value if isinstance(value, list) else ():  # pyright: ignore[reportUnknownVariableType]
            if isinstance(patch, Patch):
                patch.is_last = True

    def describe(self, value: Any) -> str:
        """The key of its page; of several the first, and how many more there are."""
        pages = [patch.frame.task for patch in _patches(value)] or tasks_of(value)
        keys = list(dict.fromkeys(printable(task.key) for task in pages))
        return f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else "".join(keys)


def _patches(value: Any) -> list[Patch]:
    several: list[Any] = value if isinstance(value, list) else [value]
    return [each for each in several if isinstance(each, Patch)]


def _is_about_the_job(error: Exception) -> bool:
    return isinstance(error, PenstockError) and not isinstance(error, ItemError)
