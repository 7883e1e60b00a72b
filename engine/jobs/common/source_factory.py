"""The source that a configuration and its specs stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from ...config.model import ServiceConfig
from ...sources import Selection, Source, SourceOptions, open_source


def make_source(
    config: ServiceConfig,
    specs: str | Sequence[str],
    *,
    stdin: BinaryIO | None = None,
    null: bool = False,
    later: bool = False,
) -> Source:
    """What was named, and of folders what the configuration wants; see ``open_source``.

    Raises:
        SourceError: a source is not there.
        ConfigError: ``include`` or ``exclude`` is no glob, or not for this source; its plugin is broken.
    """
    selection = Selection(config.include, config.exclude, config.follow_links)
    options = SourceOptions(selection, stdin, null, later)
    return open_source([specs] if isinstance(specs, str) else specs, options)
