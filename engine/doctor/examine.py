"""Whether this machine can run the main job: every check, each of them a finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...registry import Registry
from . import checks
from .findings import Finding


def examine(triton: str | None = None) -> list[Finding]:
    """Look at everything; takes a few seconds, because JAX is started once in a process of its own.

    Args:
        triton: URL of a Triton server to ask too.
    """
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
        ("proxy", checks.proxies),
        *((f"extra [{extra}]", lambda extra=extra: checks.optional(extra)) for extra in checks.EXTRAS),
        *((registry.group, lambda registry=registry: checks.plugins(registry)) for registry in registries()),
        ("Triton", lambda: checks.triton(triton)),
    ]
    return [_look(name, look) for name, look in looks]


def registries() -> Sequence[Registry[Any]]:
    """Every registry that packages can add to."""
    from ...sinks import SINKS
    from ..detectors import DETECTORS
    from ..embedders import EMBEDDERS
    from ..sources import SOURCES

    return (SOURCES, SINKS, EMBEDDERS, DETECTORS)


def _look(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # noqa: BLE001  (a check that cannot be made is a finding, and the others go on)
        return Finding(name, "fail", f"{type(error).__name__}: {error}", "this could not even be looked at")
