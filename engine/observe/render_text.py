"""A report as text and as JSON, and single lines of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...formatting import count, duration, milliseconds, percent, plural, printable, rate, size
from .report import Report, StageReport

_HOSTS = 5
"""Hosts that the report names."""

_STALLS = 3
"""Stalls that the table names."""

_COLUMNS = ("stage", "in", "out", "retried", "failed", "rate", "busy", "p50 ms", "p99 ms", "waiting")
_RETRIED = _COLUMNS.index("retried")


def render_text(report: Report) -> str:
    """The report as a compact table for a terminal, ending without a newline."""
    rows = [_COLUMNS, *map(_cells, report.stages)]
    if not any(stage.retried for stage in report.stages):
        rows = [(*row[:_RETRIED], *row[_RETRIED + 1 :]) for row in rows]
    lines = [_headline(report), *_table(rows)]
    if report.bottleneck:
        lines.append(bottleneck_line(report))
    if report.memory:
        processes = f"{report.memory.processes} processes" if report.memory.processes > 1 else "one process"
        ceiling = report.extra.get("memory_ceiling")
        most = f", {size(ceiling['bytes'])} at most were computed" if ceiling else ""
        peak = f"memory {size(report.memory.peak)} at its peak"
        lines.append(f"{peak} ({report.memory.measure.upper()}, {processes}){most}")
    lines += [stall_line(report)] if report.stalls else []
    lines += [frames_line(report)] if "videos" in report.extra else []
    lines.append(str(report.accounting))
    return "\n".join(lines)


def bottleneck_line(report: Report) -> str:
    """Which stage is slow, why, and what lifting it would be worth."""
    return f"bottleneck: {printable(report.bottleneck.reason)}" if report.bottleneck else "no stage has worked yet"


def frames_line(report: Report) -> str:
    """Of a job on videos: ``frames: created 580 = written 560 + blur 20 + dead 0; 1 min 2 s of video, 31 s each
    second``.
    """
    found = report.extra["videos"]
    frames, seconds = found["frames"], found["seconds"]
    parts = {"written": frames["written"], **frames["dropped"], "dead": frames["dead"]}
    if rest := frames["created"] - sum(parts.values()):
        parts["in flight"] = rest
    fates = " + ".join(f"{name} {count(number)}" for name, number in parts.items())
    pace = f", {seconds / report.seconds:.3g} s each second" if report.seconds else ""
    decoded = f"{count(frames['decoded'])} frames decoded"
    if across := found.get("near_duplicates"):
        fates += f"; of those written {count(across['duplicates'])} were near-duplicates of others, and are in no store"
    line = f"frames: created {count(frames['created'])} = {fates}; {decoded}, {duration(seconds)} of video{pace}"
    hosts = [
        f"{printable(host['host'])} {size(host['nbytes'])} at {size(host['rate'])}/s"
        + (f", {plural(host['failures'], 'failure')}" if host["failures"] else "")
        + (", stopped" if host["is_stopped"] else "")
        for host in found.get("hosts", ())[:_HOSTS]
    ]
    return line + (f"\ndownloaded: {'; '.join(hosts)}" if hosts else "")


def stall_line(report: Report) -> str:
    """``stood still: embed for 1 min 23 s, insert for 60 s``, the longest ones first."""
    longest = sorted(report.stalls, key=lambda stall: -stall.seconds)
    shown = [f"{printable(stall.stage)} for {duration(stall.seconds)}" for stall in longest[:_STALLS]]
    more = f", and {plural(len(longest) - _STALLS, 'more time')}" if len(longest) > _STALLS else ""
    return f"stood still: {', '.join(shown)}{more}"


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain data, with the accounting in the words of jobs."""
    books = report.accounting
    plain = report.to_dict()
    return {
        "accounting": {
            "read": books.read,
            "written": books.written,
            "filtered": books.filtered,
            "dead": books.dead,
            "in_flight": books.in_flight,
            **{name: plain["accounting"][name] for name in ("created", "merged") if plain["accounting"][name]},
        },
        "stages": plain["stages"],
        "bottleneck": plain["bottleneck"],
        "seconds": report.seconds,
        "images_per_second": report.images_per_second,
        "memory": plain["memory"],
        "extra": plain["extra"],
        "stalls": plain["stalls"],
    }


def _headline(report: Report) -> str:
    items = plural(report.accounting.written, "video" if "videos" in report.extra else "picture")
    return f"{items} in {duration(report.seconds)}, {rate(report.images_per_second)}"


def _cells(stage: StageReport) -> tuple[str, ...]:
    channel = stage.channel
    return (
        printable(stage.name) + (f" x{stage.concurrency}" if stage.concurrency > 1 else ""),
        count(stage.items_in),
        count(stage.items_out),
        count(stage.retried) if stage.retried else "",
        count(stage.failed) if stage.failed else "",
        mean_rate(stage),
        percent(stage.busy),
        milliseconds(stage.p50_ms) if stage.mean_ms else "",
        milliseconds(stage.p99_ms) if stage.mean_ms else "",
        percent(channel.occupancy) if channel else "",
    )


def mean_rate(stage: StageReport) -> str:
    """``1,234/s`` since the first output; nothing where all of it came at once, which has no rate."""
    return rate(stage.rate) if stage.rate or not stage.items_out else ""


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns in line: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
