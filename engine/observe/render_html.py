"""The report as one HTML page with plots. Needs matplotlib (the extra ``report``)."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from ...formatting import printable
from .html import page
from .render_text import bottleneck_line
from .report import Report, StageReport

_INK = "#010203"
"""Stands for the page's text colour in a plot, so that plots are right in light and in dark."""

_BUSY, _STARVED, _BLOCKED = "#2f7fd3", "#c9b458", "#c4573f"
"""Told apart by people with any kind of colour vision, in light and dark; the legend names them."""


def report_page(report: Report) -> str:
    """The whole page."""
    plots = []
    if report.stages:
        plots = [
            ("Where each stage's time goes", _time_plot(report.stages)),
            ("Time of one operation", _latency_plot([stage for stage in report.stages if stage.mean_ms])),
        ]
    return page(
        "report.html",
        report=report,
        books=str(report.accounting),
        bottleneck=bottleneck_line(report),
        plots=[(title, svg) for title, svg in plots if svg],
    )


def _time_plot(stages: Sequence[StageReport]) -> Markup:
    """Stacked bars: busy, waiting for input, waiting for room."""

    def draw(axes: Any) -> None:
        left = [0.0] * len(stages)
        kinds = (
            ("busy", _BUSY, [stage.busy for stage in stages]),
            ("waiting for input", _STARVED, [stage.wait_in for stage in stages]),
            ("waiting for room behind", _BLOCKED, [stage.wait_out for stage in stages]),
        )
        for label, colour, shares in kinds:
            percents = [100 * share for share in shares]
            axes.barh(range(len(stages)), percents, left=left, color=colour, label=label, height=0.6)
            left = [before + more for before, more in zip(left, percents, strict=True)]
        axes.set_xlabel("% of the time")
        axes.set_xlim(0, max(100.0, *left))

    return _plot(draw, stages, "time", "Share of the time that each stage is busy or waits")


def _latency_plot(stages: Sequence[StageReport]) -> Markup | None:
    """From the median to the 99th percentile, on a logarithmic axis."""
    if not stages:
        return None

    def draw(axes: Any) -> None:
        for row, stage in enumerate(stages):
            axes.plot([stage.p50_ms, stage.p99_ms], [row, row], color=_INK, linewidth=1, zorder=1)
        for label, colour, values in (
            ("p50", _BUSY, [stage.p50_ms for stage in stages]),
            ("p90", _STARVED, [stage.p90_ms for stage in stages]),
            ("p99", _BLOCKED, [stage.p99_ms for stage in stages]),
        ):
            axes.scatter(
                [max(value, 1e-3) for value in values], range(len(stages)), color=colour, label=label, zorder=2
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("milliseconds")

    return _plot(draw, stages, "latency", "Median, 90th and 99th percentile of each stage's operations")


def _plot(draw: Any, stages: Sequence[StageReport], name: str, description: str) -> Markup:
    """Horizontal rows, one per stage, as an inline SVG that takes the page's colours."""
    # Figure, not pyplot: pyplot is global state of whoever imports us.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    # A fixed salt: the same report makes the same page.
    style: dict[Any, Any] = {**dict.fromkeys(colours, _INK), "svg.hashsalt": "penstock", "font.size": 10}
    with rc_context(style):
        figure = Figure(figsize=(8, 0.45 * len(stages) + 1.4), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        # parse_math off: a stage is called what the user calls it, also $x$.
        axes.set_yticks(range(len(stages)), [printable(stage.name) for stage in stages], parse_math=False)
        axes.set_ylim(len(stages) - 0.5, -0.5)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper right", ncols=3, frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Several plots in one page must not share ids.
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    label = Markup('<svg role="img" aria-label="{}" ').format(description)
    return label + Markup(svg.removeprefix("<svg "))  # noqa: S704  (matplotlib escapes every text it draws)
