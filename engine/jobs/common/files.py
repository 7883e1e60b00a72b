"""The files that a configuration and its sources stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from ...config.model import ServiceConfig
from ...sources import FileSource, Selection


def files_of(
    config: ServiceConfig,
    specs: str | Sequence[str],
    *,
    stdin: BinaryIO | None = None,
    null: bool = False,
    later: bool = False,
) -> FileSource:
    """What was named, and of folders what the configuration wants; see ``FileSource``.

    Raises:
        SourceError: a source is not there.
        ConfigError: ``include`` or ``exclude`` is no glob.
    """
    selection = Selection(config.include, config.exclude, config.follow_links)
    return FileSource(specs, stdin, null, later=later, selection=selection)
