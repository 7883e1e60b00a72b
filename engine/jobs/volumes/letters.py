"""Where the dead letters of volumes go."""

from __future__ import annotations

from pathlib import Path

from ...config.volumes import PipelineConfig
from .places import local_folder


def letters_path(cfg: PipelineConfig) -> Path | None:
    """The file that lists pages that could not be done; None: nowhere, since nothing is published.

    In the job's folder; without one beside the folder that volumes are published in, or in the current folder where
    that is elsewhere.
    """
    if cfg.job is not None:
        return cfg.job / "dead-letters.jsonl"
    if cfg.destination is None:
        return None
    folder = local_folder(cfg.destination)
    return folder.with_name(f"{folder.name}.dead-letters.jsonl") if folder else Path("volumes.dead-letters.jsonl")
