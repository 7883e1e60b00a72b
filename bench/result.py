"""What a benchmark found: rows of figures, ratios within rounds, goals held against them, as text and as JSON."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from ..engine.machine.resources import usable_cores
from ..errors import ConfigError

_PACKAGES = (
    "penstock",
    "numpy",
    "pillow",
    "jax",
    "gevent",
    "simplejpeg",
    "cykooz.resizer",
    "torch",
    "pymilvus",
    "milvus-lite",
)


def machine() -> dict[str, Any]:
    """Where this runs: cores it may use, CPU model, system, versions."""
    return {
        "cores": usable_cores(),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of one figure over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value.

        Raises:
            ConfigError: there are no values.
        """
        if not values:
            raise ConfigError("rounds=0: a benchmark needs at least one round")
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Row:
    """One variant: its figure in each round, and its ratio to the baseline in the same round."""

    name: str
    values: tuple[float, ...]
    spread: Spread
    ratio: Spread | None


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach: of ``row`` itself, or of its ratio to ``against``; at least, or at most."""

    row: str
    bound: float
    against: str | None = None
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a goal."""

    text: str
    measured: Spread
    met: bool


@dataclass(frozen=True, slots=True)
class Table:
    """The variants of one comparison.

    Attributes:
        title: what was measured.
        unit: of the figures.
        rows: in the order of the variants; those that could not run are missing.
        baseline: the row that ratios refer to, if any.
        verdicts: the goals whose rows are there.
    """

    title: str
    unit: str
    rows: tuple[Row, ...]
    baseline: str | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One benchmark's answer.

    Attributes:
        name: of the benchmark.
        tables: what it found.
        skipped: variants that could not run, with the reason.
        notes: what a reader must know to judge the figures.
        machine: where it ran, with which versions.
    """

    name: str
    tables: Sequence[Table]
    skipped: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=machine)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, every round's figures included."""
        return asdict(self)


def paired(values: Sequence[float], base: Sequence[float]) -> Spread:
    """The ratio of two variants: of figures of the *same round*, then the median over rounds.

    A machine that is slow for a while slows both, so this is steadier than the ratio of two medians.

    Raises:
        ConfigError: the two have not run the same rounds.
    """
    if len(values) != len(base):
        raise ConfigError(
            f"rounds: {len(values)} figures cannot be paired with {len(base)}: the rounds must be the same"
        )
    return Spread.of([value / against for value, against in zip(values, base, strict=True)])


def tabulate(
    title: str,
    unit: str,
    samples: Mapping[str, Sequence[float]],
    *,
    baseline: str | None = None,
    goals: Sequence[Goal] = (),
) -> Table:
    """Make a table of each variant's figures, one a round.

    Args:
        title: what was measured.
        unit: of the figures.
        samples: figures by variant. A baseline or goal that names a variant that is not there is left out.
        baseline: the variant that ratios refer to.
        goals: what is to be reached.
    """
    base = samples.get(baseline) if baseline else None
    rows = tuple(
        Row(name, tuple(values), Spread.of(values), paired(values, base) if base else None)
        for name, values in samples.items()
    )
    verdicts = tuple(
        _judge(goal, samples) for goal in goals if goal.row in samples and (goal.against or goal.row) in samples
    )
    return Table(title, unit, rows, baseline if base else None, verdicts)


def _judge(goal: Goal, samples: Mapping[str, Sequence[float]]) -> Verdict:
    values = samples[goal.row]
    measured = paired(values, samples[goal.against]) if goal.against else Spread.of(values)
    met = measured.median <= goal.bound if goal.at_most else measured.median >= goal.bound
    what = f"{goal.row} / {goal.against}" if goal.against else goal.row
    return Verdict(f"{what} {'at most' if goal.at_most else 'at least'} {goal.bound:g}", measured, met)


def render(result: Result) -> str:
    """The result as text for people."""
    lines = [f"penstock.bench {result.name}", ""]
    for table in result.tables:
        lines += [*_table_lines(table), ""]
    lines += [f"not run: {name}: {reason}" for name, reason in result.skipped.items()]
    lines += [f"note: {note}" for note in result.notes]
    facts = result.machine
    lines.append(f"machine: {facts['cores']} cores of {facts['cpu']}, {facts['system']}, Python {facts['python']}")
    lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    return "\n".join(lines)


def _table_lines(table: Table) -> list[str]:
    width = max((len(row.name) for row in table.rows), default=0)
    lines = [f"{table.title}  ({table.unit}, median [least..most] of {_rounds(table)} rounds)"]
    for row in table.rows:
        figure = f"  {row.name:<{width}}  {_figure(row.spread)}"
        ratio = f"   {_figure(row.ratio)} x" if row.ratio and row.name != table.baseline else ""
        lines.append(figure + (ratio or ("   baseline" if row.name == table.baseline else "")))
    lines += [
        f"  {'reached' if verdict.met else 'MISSED '}  {verdict.text}: {_figure(verdict.measured).strip()}"
        for verdict in table.verdicts
    ]
    return lines


def _rounds(table: Table) -> int:
    return max((len(row.values) for row in table.rows), default=0)


def _figure(spread: Spread) -> str:
    digits = 0 if spread.median >= 200 else 1 if spread.median >= 20 else 3 if spread.median < 2 else 2
    return f"{spread.median:8.{digits}f} [{spread.least:.{digits}f}..{spread.most:.{digits}f}]"
