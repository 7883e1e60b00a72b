"""Whether this machine can run the main job, and what to change where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..formatting import printable

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


def examine(triton: str | None = None) -> list[Finding]:
    """Look at everything; takes a few seconds, because JAX is started once in a process of its own.

    Args:
        triton: URL of a Triton server to ask too.
    """
    from . import doctor_checks as checks

    looks: list[tuple[str, Callable[[], Finding]]] = [
        ("cores", checks.cores),
        ("memory", checks.memory),
        ("shared memory", checks.shared_memory),
        ("processes", checks.processes),
        ("orphans", checks.orphaned_segments),
        ("JAX", checks.jax),
        ("Pillow", checks.pillow),
        ("gevent", checks.gevent),
        ("Milvus Lite", checks.milvus_lite),
        ("cache", checks.cache),
        ("sandbox", checks.sandbox),
        *((f"extra [{extra}]", lambda extra=extra: checks.optional(extra)) for extra in checks.EXTRAS),
        ("Triton", lambda: checks.triton(triton)),
    ]
    return [_look(name, look) for name, look in looks]


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


def _look(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # noqa: BLE001  (a check that cannot be made is a finding, and the others go on)
        return Finding(name, "fail", f"{type(error).__name__}: {error}", "this could not even be looked at")
