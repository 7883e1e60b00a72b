"""Where a job leaves what is not a vector."""

from __future__ import annotations

import os
from pathlib import Path

from ....errors import ConfigError
from ...config.model import ServiceConfig


def report_paths(config: ServiceConfig) -> list[Path]:
    """Where the report goes: the files that were asked for, and the job's folder."""
    own = [config.job / "report.json"] if config.job is not None else []
    return [*own, *config.report]


def bulk_folder(config: ServiceConfig) -> Path | None:
    """The folder of ``bulk:DIR``; None where rows go to a store."""
    scheme, colon, folder = (config.to or "").partition(":")
    if not (scheme == "bulk" and colon):
        return None
    if folder.startswith("//"):
        raise ConfigError(f"to: write bulk:FOLDER, not {config.to!r}: it is a folder here, and no address")
    return Path(os.path.expanduser(folder))  # noqa: PTH111  (no shell does it after a colon; Path's fails on ~nobody)


def dead_letters_path(config: ServiceConfig) -> Path:
    """The file that lists what could not be done.

    In the job's folder; without one beside the Milvus Lite store (``photos.dead-letters.jsonl`` for ``photos.db``) or
    the bulk folder, or in the current folder where the store is a server.
    """
    if config.job is not None:
        return config.job / "dead-letters.jsonl"
    folder = bulk_folder(config)
    store = config.to or ""
    if folder or "://" not in store:
        return (folder or Path(store)).with_suffix(".dead-letters.jsonl")
    return Path(f"{config.collection}.dead-letters.jsonl")
