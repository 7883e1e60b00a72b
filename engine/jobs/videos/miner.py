"""`VideoMiner`: frames of videos into a store, from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ....errors import ConfigError
from ....sinks import read_dead_letters
from ... import Report
from ...config.videos import VideoConfig
from ...downloads import video_id
from ..common.drive import Interrupt, Watcher
from ..common.output_paths import dead_letters_path
from ..common.source_factory import make_source
from .messages import PipelineMetrics
from .run_videos import run_videos

_ERRORS = 1000


class VideoMiner:
    """Takes frames of videos, embeds them and keeps their vectors; what ``penstock videos`` does.

    Args:
        config: what to do; default: ``VideoConfig(**settings)``.
        settings: fields of `VideoConfig`, instead of a config.

    Raises:
        ConfigError: a setting is wrong, or there is nowhere for rows to go.
    """

    def __init__(self, config: VideoConfig | None = None, **settings: Any) -> None:
        if config is not None and settings:
            raise ConfigError("VideoMiner takes a configuration or settings, not both")
        self.config = config or VideoConfig(**settings)
        if self.config.to is None:
            raise ConfigError("to is missing: where do the vectors go? For example to='photos.db'")
        self._seen: Report | None = None
        self._watcher: Watcher | None = None

    interval: float = 1.0

    def update(self, report: Report) -> None:
        """Told how the job goes; passes it on to who watches."""
        self._seen = report
        if self._watcher is not None:
            self._watcher.update(report)

    def run(
        self,
        sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        watcher: Watcher | None = None,
        interrupt: Interrupt | None = None,
    ) -> Report:
        """Mine videos; with ``job`` it can be killed at any moment, and goes on when it is called again.

        Args:
            sources: folders, files, globs, ``@list.txt``, URLs.
            watcher: told how it goes.
            interrupt: lets another thread end it early.

        Returns:
            The report. Its accounting is of videos; ``report.extra["videos"]`` has their frames.

        Raises:
            SourceError: a source is not there.
            PipelineFailure: the job could not go on, or its failure budget is spent.
        """
        self._watcher = watcher
        named = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
        source = make_source(self.config, [os.fspath(each) for each in named])
        report = run_videos(self.config, source, watcher=self, interrupt=interrupt)
        self._seen = report
        return report

    @property
    def metrics(self) -> PipelineMetrics:
        """How the stages do, also from another thread while `run` goes on."""
        letters = read_dead_letters(dead_letters_path(self.config))
        errors = [
            (video_id(str(letter.fields.get("video", letter.key))), f"{letter.error}: {letter.message}")
            for letter, _ in zip(letters, range(_ERRORS), strict=False)
        ]
        return PipelineMetrics.of(self._seen or Report(), errors)
