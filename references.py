"""References: pictures that are no files of this machine, by what it takes to read one in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from .errors import ConfigError
from .lazy import import_named


class Version(NamedTuple):
    """What a source knows of one picture's content without reading it; two that differ are two contents.

    Attributes:
        size: bytes; -1 where unknown.
        mtime_ns: time of the last change in ns since 1970; 0 where unknown.
        tag: an etag, a generation, a row's version; empty where there is none.
    """

    size: int = -1
    mtime_ns: int = 0
    tag: str = ""


class Fetcher(Protocol):
    """Reads the pictures of one place, in the process that made it. Several threads call it at once."""

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        """The bytes of one picture's file.

        Args:
            ref: which; see `Reference`.
            version: what it was when the source was listed. Where the place can tell, another one is a ReadError.
            max_bytes: more are a TooLargeError, raised before they are in memory where the place can tell.

        Raises:
            ItemError: this picture cannot be had. Any other exception is taken for a ReadError of this picture.
        """
        ...


class Locator(NamedTuple):
    """How any process opens a place, as two texts that travel with every task.

    Attributes:
        factory: ``module:function``; called with the options, gives a `Fetcher`. It can be imported by workers.
        options: one text of the factory's own kind. No secrets: what a place needs of those is in the environment.
    """

    factory: str
    options: str = ""

    def open(self) -> Fetcher:
        """Make the fetcher, in this process.

        Raises:
            ConfigError: there is no such function.
        """
        return self._factory()(self.options)

    def check(self) -> None:
        """Whether the function is there. Opens nothing.

        Raises:
            ConfigError: it is not.
        """
        self._factory()

    def _factory(self) -> Callable[[str], Fetcher]:
        try:
            return cast("Callable[[str], Fetcher]", import_named(self.factory))
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"source: what reads its pictures, {self.factory}, cannot be had: {error}") from error


class Reference(NamedTuple):
    """One picture that a fetcher reads.

    Attributes:
        locator: of the place.
        ref: which picture, in the place's own words.
        version: what it was when it was listed.
    """

    locator: Locator
    ref: str
    version: Version = Version()

    def __str__(self) -> str:
        return self.ref
