"""Where a job leaves what is not a vector."""

from __future__ import annotations

from pathlib import Path

from ...config.model import ServiceConfig
from .sink_factory import job_sink


def report_paths(config: ServiceConfig) -> list[Path]:
    """Where the report goes: the files that were asked for, and the job's folder."""
    own = [config.job / "report.json"] if config.job is not None else []
    return [*own, *config.report]


def dead_letters_path(config: ServiceConfig) -> Path:
    """The file that lists what could not be done; see `beside_rows`."""
    return beside_rows(config, "dead-letters.jsonl")


def beside_rows(config: ServiceConfig, name: str) -> Path:
    """A file about the job.

    In the job's folder; without one beside the file or folder of the sink (``photos.dead-letters.jsonl`` for
    ``photos.db``), or in the current folder where the rows go elsewhere.

    Args:
        config: of the job.
        name: of the file, as ``dead-letters.jsonl``.
    """
    if config.job is not None:
        return config.job / name
    path = job_sink(config).local_path
    return path.with_suffix(f".{name}") if path else Path(f"{config.collection}.{name}")
