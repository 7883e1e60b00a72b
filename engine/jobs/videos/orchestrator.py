"""`AsyncPipelineOrchestrator`: stages over messages about videos, a user's own among them, on the one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from ....messages import redact
from ... import ItemFailure, Pipeline, PipelineBuilder, PlainValues, Report
from ...config.videos import VideoConfig
from ...dedup import Duplicate
from ...downloads import video_id
from ...sources import absolute
from ..common.drive import Interrupt, drive
from .downloads import VideoFiles
from .messages import BaseStageWorker, PipelineMetrics, StageMessage
from .stages import DedupCollector, DownloadWorker, ExtractWorker, FilterWorker

_ERRORS: Final = 1000

_OWNER: Final = "messages about videos"


class AsyncPipelineOrchestrator:
    """Runs stages over videos: download, extract, filter and collect near-duplicates, or whatever stages it is given.

    Args:
        config: of the job; ``work`` is where videos and frames lie, ``every`` and ``filter`` say which frames.
        stages: makes the stages, of the configuration and of the files of videos; default: `default_stages`. Any
            `BaseStageWorker` will do.

    Attributes:
        report: of the last run, once it has ended.
    """

    def __init__(
        self,
        config: VideoConfig,
        stages: Callable[[VideoConfig, VideoFiles], Sequence[BaseStageWorker]] | None = None,
    ) -> None:
        self._config, self._stages = config, stages or default_stages
        self._errors: list[tuple[str, str]] = []
        self._pipeline: Pipeline | None = None
        self.report: Report | None = None

    @property
    def metrics(self) -> PipelineMetrics:
        """How stages do now; at the end, how they did."""
        report = self._pipeline.snapshot() if self.report is None and self._pipeline else self.report
        return PipelineMetrics.of(report or Report(), self._errors)

    async def run(self, urls: Iterable[str]) -> list[Duplicate]:
        """Run all videos through all stages.

        Args:
            urls: URLs, or paths of files.

        Returns:
            Frames that are near-duplicates of others, by the last stage that is a `DedupCollector`; empty without.

        Raises:
            PipelineFailure: a stage could not go on. What fails of one video is in `metrics`, and costs no other.
        """
        interrupt = Interrupt()
        done = asyncio.get_running_loop().run_in_executor(None, self._run, list(urls), interrupt)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            interrupt.request()
            await asyncio.wait([done])
            raise

    def _run(self, urls: Sequence[str], interrupt: Interrupt) -> list[Duplicate]:
        self._errors, self.report = [], None
        with ExitStack() as stack:
            files = VideoFiles(self._config, _OWNER)
            stack.callback(files.close)
            stages = self._stages(self._config, files)
            for stage in stages:
                stack.callback(stage.close)
                stage.open()
            self._pipeline = self._graph(map(_message, urls), stages)
            try:
                drive(self._pipeline, lambda _: None, interrupt=interrupt)
            finally:
                self.report = self._pipeline.report()
            collectors = [stage for stage in stages if isinstance(stage, DedupCollector)]
            return collectors[-1].duplicates() if collectors else []

    def _graph(self, messages: Iterable[StageMessage], stages: Sequence[BaseStageWorker]) -> Pipeline:
        builder = PipelineBuilder(values=_Messages(self._failed)).add_source(messages)
        for stage in stages:
            concurrency = stage.concurrency if self._config.async_mode else 1
            builder.pipe(stage.process, name=stage.name, concurrency=concurrency)
        threads = sum(stage.concurrency for stage in stages) if self._config.async_mode else 1
        return builder.add_sink().build(num_threads=max(1, threads), max_failures=self._config.max_failures)

    def _failed(self, message: StageMessage, error: Exception) -> None:
        if len(self._errors) < _ERRORS:
            self._errors.append((message.video_id, f"{type(error).__name__}: {redact(str(error))}"))


def default_stages(config: VideoConfig, files: VideoFiles) -> Sequence[BaseStageWorker]:
    """Download, extract, filter, and the collector of near-duplicates."""
    collector = DedupCollector(Path(files.place) / ".dedup")
    return [DownloadWorker(config, files), ExtractWorker(config, files), FilterWorker(config), collector]


class _Messages(PlainValues):
    def __init__(self, failed: Callable[[StageMessage, Exception], None]) -> None:
        self._failed = failed

    def failed(self, stage: str, value: Any, failures: Sequence[ItemFailure]) -> None:
        del stage
        for failure in failures:
            self._failed(value, failure.error)

    def describe(self, value: Any) -> str:
        return str(value.metadata.get("key", value.video_id))


def _message(url: str) -> StageMessage:
    key = url if "://" in url else absolute(url)
    return StageMessage(video_id(key), key, {"key": key})
