"""The source that a configuration and its specs stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from ....object_stores import StoreOptions
from ...config.model import ServiceConfig
from ...sources import VIDEOS, Selection, Source, SourceOptions, UrlOptions, open_source


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
    options = SourceOptions(selection, stdin, null, later, urls_of(config))
    if config.kind == VIDEOS.noun + "s":
        options = replace(options, media=VIDEOS)
    return open_source([specs] if isinstance(specs, str) else specs, options)


def urls_of(config: ServiceConfig) -> UrlOptions:
    """How URLs are read: all attempts together within the time that a picture may take, or its worker is replaced."""
    stores = StoreOptions(
        config.anonymous, config.instance_role, timeout=config.item_timeout / 3, retry_for=config.item_timeout / 2
    )
    return UrlOptions(stores, tuple(config.allow_hosts), 0.8 * config.item_timeout)
