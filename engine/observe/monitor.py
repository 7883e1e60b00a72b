"""What happens at intervals while a pipeline runs: rates are sampled, memory measured, a line per stage logged, and
stages that stand still are told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter

from ..core.definitions import GraphDef
from ..core.metrics import SAMPLE_SECONDS
from .dump import Running
from .memory_sampler import MemorySampler
from .report import MemoryReport, Report, Stall
from .report_builder import make_report
from .watchdog import Watchdog

_logger = logging.getLogger(__name__)


class Monitor:
    """The observer of one run."""

    def __init__(self, definition: GraphDef) -> None:
        self._log_interval = definition.log_interval
        self._memory_interval = definition.sample_memory
        self._stall_after = definition.stall_after
        self._sampler: MemorySampler | None = None
        self._watchdog: Watchdog | None = None

    @property
    def memory(self) -> MemoryReport | None:
        """The latest sample."""
        return self._sampler.report if self._sampler is not None else None

    @property
    def stalls(self) -> Sequence[Stall]:
        """Times in which a stage stood still."""
        return self._watchdog.stalls if self._watchdog is not None else ()

    def begin(self, run: Running) -> None:
        """Start watching, from the run's hub."""
        if self._memory_interval is not None:
            self._sampler = MemorySampler(self._memory_interval, f"{run.label}-memory")
        if self._stall_after is not None:
            self._watchdog = Watchdog(run, self._stall_after)
            self._watchdog.begin()
        run.hub.timer(SAMPLE_SECONDS, lambda: _sample(run), every=True)
        if self._log_interval is not None:
            run.hub.timer(self._log_interval, lambda: self._log(make_report(run, self.memory, self.stalls)), every=True)

    def mute(self, complete: bool) -> None:
        """The run is ending, `complete` if all stages have: nothing more is told of what stands still."""
        if self._watchdog is not None:
            self._watchdog.mute(complete)

    def end(self) -> list[str]:
        """Stop watching; returns the names of threads that do not end."""
        late = self._watchdog.end() if self._watchdog is not None else []
        return late + (self._sampler.stop() if self._sampler is not None else [])

    @staticmethod
    def _log(report: Report) -> None:
        slow = report.bottleneck.stage if report.bottleneck is not None else ""
        for stage in report.stages:
            fill = f"{stage.channel.items}/{stage.channel.capacity}" if stage.channel is not None else "-"
            _logger.info(
                "%s: %.1f/s now, %.1f/s, in %d, out %d, dropped %d, failed %d, in flight %d, p50 %.3g ms, p99 %.3g ms, "
                "busy %.0f%%, channel %s%s",
                *(stage.name, stage.rate_now, stage.rate, stage.items_in, stage.items_out, stage.dropped, stage.failed),
                *(stage.in_flight, stage.p50_ms, stage.p99_ms, 100 * stage.busy, fill),
                " <- bottleneck" if stage.name == slow else "",
            )


def _sample(run: Running) -> None:
    now = perf_counter()
    for node in run.graph.nodes:
        node.meter.sample(now)
    run.output.sample(now)
