"""What was found out about this machine: as data, and as lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...formatting import printable

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: fail: the main job cannot run; warn: it runs, worse than it could.
        detail: what was found.
        advice: what to change; empty where nothing needs to be.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""


def is_ready(findings: Sequence[Finding]) -> bool:
    """Whether nothing fails."""
    return all(finding.status != "fail" for finding in findings)


def findings_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """As plain data."""
    return [asdict(finding) for finding in findings]


def findings_text(findings: Sequence[Finding]) -> str:
    """One line each, what to change below it, and a conclusion."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.status:<4}  {finding.name:<{width}}  {printable(finding.detail)}")
        if finding.advice:
            lines.append(f"{'':<4}  {'':<{width}}  -> {printable(finding.advice)}")
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    verdict = f"not ready: {failed} to put right" if failed else "ready"
    return "\n".join([*lines, f"{verdict}{f', {warned} could be better' if warned else ''}"])
