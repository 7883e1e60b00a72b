"""The books of a job on videos: what became of each video and of its frames."""

from __future__ import annotations

import threading
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from ....errors import AccountingError
from ....messages import redact
from ... import Report
from ...config.videos import VideoConfig
from ...observe.report import Accounting
from .side_tables import VideoTable
from .values import Finished, Tally, Video


@dataclass(slots=True)
class _Totals:
    """Of videos that are done, or under way."""

    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    decoded: int = 0
    packets: int = 0

    def add(self, video: Video) -> None:
        total, own = self.tally, video.tally
        total.created += own.created
        total.written += own.written
        total.dropped += own.dropped
        total.dead += own.dead
        self.seconds += video.found.get("end_us", 0) / 1e6
        self.decoded += video.found.get("frames_decoded", 0)
        self.packets += video.found.get("packets", 0)


class VideoBooks:
    """Which videos were begun in this run, and what became of them.

    Args:
        table: gets a line for each video that is done.

    Attributes:
        left: videos that were not tried, since their host refuses: they stay undone for a later run.
    """

    def __init__(self, table: VideoTable) -> None:
        self._table = table
        self.left = 0
        self._mutex = threading.Lock()
        self._open: dict[Video, None] = {}
        self._done = _Totals()
        self._fates: Counter[str] = Counter()

    def begun(self, video: Video) -> None:
        """Frames of it come, from the first on."""
        video.begin()
        with self._mutex:
            self._open[video] = None

    def finished(self, value: Finished) -> None:
        """All of its frames are written, or left out.

        Raises:
            AccountingError: some are missing.
        """
        self._closed(value.video, "written")
        self._table.add(value.video.key, value.video.ordinal, value.video, "written")

    def died(self, key: str, ordinal: int, video: Video | None, stage: str, error: Exception) -> None:
        """It could not be done, or one of its frames.

        Raises:
            AccountingError: some of its frames are missing.
        """
        if video is not None:
            self._closed(video, "dead")
        else:
            self._fates["dead"] += 1
        self._table.add(key, ordinal, video, "dead", stage, type(error).__name__, redact(str(error)))

    @property
    def figures(self) -> dict[str, Any]:
        """Plain figures, for progress and reports: of this run."""
        with self._mutex:
            total, open_videos, fates = deepcopy(self._done), list(self._open), dict(self._fates)
        for video in open_videos:
            total.add(video)
        tally = total.tally
        return {
            "written": fates.get("written", 0),
            "dead": fates.get("dead", 0),
            "left": self.left,
            "open": len(open_videos),
            "seconds": total.seconds,
            "frames": {
                "decoded": total.decoded,
                "created": tally.created,
                "written": tally.written,
                "dropped": dict(tally.dropped),
                "dead": tally.dead,
            },
        }

    def accounting(self, report: Report) -> Accounting:
        """A run's books in videos; the engine's count frames, too."""
        stages = {stage.name: stage for stage in report.stages}
        failed = sum(stages[name].failed for name in VideoConfig.budgets if name in stages) - self.left
        dropped = stages["source"].dropped if "source" in stages else 0
        books = report.accounting
        rest = books.read - books.delivered - dropped - failed
        return Accounting(books.read, books.delivered, dropped, failed, rest)

    def check(self, report: Report, interrupted: bool) -> None:
        """Hold what was counted here against what the engine has counted, at the end.

        Args:
            report: the engine's.
            interrupted: whether it was asked to end early; else nothing may be in flight.

        Raises:
            AccountingError: they differ.
        """
        figures, own = self.figures, self.accounting(report)
        frames = figures["frames"]
        passed = frames["created"] - sum(frames["dropped"].values())
        stages = {stage.name: stage for stage in report.stages}
        found = {
            "videos written": (figures["written"], own.written),
            "videos dead": (figures["dead"], own.dead),
            "frames": (passed, stages["extract"].created),
            "videos in flight": (0 if interrupted else figures["open"], 0),
            "frames in flight": (0 if interrupted else passed - frames["written"] - frames["dead"], 0),
        }
        wrong = [f"{name}: {here} here, {there} counted" for name, (here, there) in found.items() if here != there]
        if wrong:
            raise AccountingError(f"the books of videos and the stages disagree: {'; '.join(wrong)}")

    def _closed(self, video: Video, fate: str) -> None:
        if left := video.tally.in_flight:
            raise AccountingError(f"{video.key}: it is done, and {left} of its {video.tally.created} frames are not")
        with self._mutex:
            self._open.pop(video, None)
            self._done.add(video)
            self._fates[fate] += 1
