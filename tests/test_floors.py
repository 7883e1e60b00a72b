"""Who may import whom: floors from the ground up, and no circle anywhere."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import penstock

ROOT = Path(penstock.__file__).parent
FLOORS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            # beside the folders, for everybody
            {
                "backoff",
                "descriptors",
                "durable",
                "errors",
                "formatting",
                "lazy",
                "messages",
                "picture_formats",
                "references",
                "registry",
                "video_formats",
            },
            {"fetch", "object_stores", "shm"},
            {"engine.core", "engine.journal", "engine.machine", "engine.sources", "preprocess", "sinks"},
            {
                "engine.embedders",
                "engine.observe",
                "preprocess.kernel",
                "preprocess.pages",
                "preprocess.videos",
                "sinks.parquet",
            },
            {
                "engine.detectors",
                "engine.pipeline",
                "preprocess.decode",
                "preprocess.sandbox",
                "sinks.lance",
                "sinks.milvus",
                "sinks.npy",
                "sinks.signatures",
            },
            {"engine", "engine.config", "engine.dedup", "preprocess.worker", "sinks.registry"},
            {"engine.workers"},
            {"engine.downloads", "engine.jobs", "engine.jobs.common"},
            {"engine.jobs.images", "engine.jobs.videos", "engine.jobs.volumes"},
            {"engine.doctor", "engine.jobs.dedup", "engine.servers", "penstock", "videos", "volumes"},
            {"bench", "engine.cli", "testing"},
            {"__main__"},
        ),
    )
)
"""Each room by the name of its folder; the registry of sinks is a room, since it names those that lie in folders. What
lies directly in ``preprocess`` and ``sinks`` is below their folders; a package itself only tells where its names are
(`FACES`)."""

FACES = {"penstock", "engine", "preprocess", "sinks"}
"""Packages whose ``__init__`` gives names of rooms above: it is imported from above only."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name within it; the package itself is ``penstock``."""
    found: dict[str, Path] = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] not in ("tests", "examples", "build") and not parts[0].startswith("."):
            found[".".join(part for part in parts if part != "__init__") or "penstock"] = path
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """Names of the modules that a module imports from penstock, wherever in it."""
    path = modules()[name]
    package = ("penstock", *path.relative_to(ROOT).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            top, *base = (*above, *filter(None, (node.module or "").split(".")))
            for alias in node.names if top == "penstock" else ():
                inner = ".".join((*base, alias.name))
                found.add(inner if inner in modules() else ".".join(base) or "penstock")
    return frozenset(found - {name})


def room(name: str) -> str:
    """The longest name of a room that a module's name begins with; a face lies above all of its folders."""
    rooms = frozenset[str]().union(*FLOORS)
    parts = name.split(".")
    return next(found for end in range(len(parts), 0, -1) if (found := ".".join(parts[:end])) in rooms)


def test_there_are_at_most_twelve_floors_and_every_module_has_its_room() -> None:
    """A new folder has to say on which floor it is."""
    assert len(FLOORS) <= 12
    assert {room(name) for name in modules()} == frozenset[str]().union(*FLOORS)


def test_arrows_go_down_only() -> None:
    """A module imports from its own room and from lower floors; what a face tells of is not imported through it."""
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    wrong = [
        f"{name} imports {other}"
        for name in modules()
        if name not in FACES | FLOORS[0]
        for other in imports(name)
        if room(name) != room(other) and floor[room(other)] >= floor[room(name)]
    ]
    assert not wrong


def test_imports_form_no_circle() -> None:
    """Not even within a room, nor by an import within a function."""
    TopologicalSorter({name: imports(name) for name in modules()}).prepare()


def test_what_lies_beside_the_folders_needs_nothing_but_errors_and_imports_by_name() -> None:
    """Whoever imports a part of the ground floor gets nothing else with it."""
    for name in FLOORS[0]:
        assert imports(name) <= {"errors", "lazy"}
