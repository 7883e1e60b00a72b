"""Interleaved rounds: every variant in a process of its own, a round each in turn, so that all see the same weather."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self, cast

from ..errors import ConfigError, WorkerDiedError, WorkerStartError
from .child import Measures

ONE_CORE = {"NPROC": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Environment of a child that is pinned to one core: no library starts threads that would only fight for it."""

SPAWNED = "PENSTOCK_BENCH_SPAWNED"
"""Environment variable of a child: ``time.monotonic()`` just before its start."""

_DEADLINE = 900.0
"""Seconds a round may take before the benchmark is given up: a hang must not look like a slow machine."""

_EXIT = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may set.

    Attributes:
        n: pictures a round; None: what the benchmark finds sensible.
        rounds: measured rounds; None: the same.
        data: where generated pictures lie.
    """

    data: Path
    n: int | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("n", self.n), ("rounds", self.rounds)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to do the work that is compared.

    Attributes:
        name: shown in the table.
        target: ``module:factory`` in ``penstock.bench``; see ``child.Factory``.
        args: keyword arguments of the factory, plain JSON values.
        one_core: pin the process, and what it starts, to one core.
        fresh: a new process for each round, whose start belongs to the measurement.
        env: further environment variables of the process.
    """

    name: str
    target: str
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    one_core: bool = False
    fresh: bool = False
    env: Mapping[str, str] = field(default_factory=dict[str, str])


class MissingError(WorkerStartError):
    """What a variant needs is not installed."""


class Child:
    """A variant's process. Use as a context manager; at the exit it ends, by force if it must.

    Raises:
        MissingError: what the variant needs is not installed.
        WorkerStartError: it cannot be made ready; the message holds its traceback.
    """

    def __init__(self, variant: Variant) -> None:
        self._name = variant.name
        core = min(os.sched_getaffinity(0)) if variant.one_core else None
        spec = json.dumps({"target": variant.target, "args": dict(variant.args), "core": core})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "penstock.bench.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(ONE_CORE if variant.one_core else {}), **variant.env, SPAWNED: str(time.monotonic())},
        )
        try:
            self._write(spec)  # not as an argument: those end at 128 KiB, and thousands of paths may be in it
            ready = self._read(WorkerStartError)
            if "missing" in ready:
                raise MissingError(ready["missing"])
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self) -> None:
        """Start a round and come back at once."""
        self._write("")

    def answer(self) -> Measures:
        """Wait for the figures of the round that was asked for.

        Raises:
            WorkerDiedError: the process has died, raised an error, or is over its deadline.
        """
        return self._read(WorkerDiedError)

    def measure(self) -> Measures:
        """Run one round."""
        self.ask()
        return self.answer()

    def close(self) -> None:
        """End the process. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                cast("IO[bytes]", pipe).close()
        try:
            self._process.wait(_EXIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: str) -> None:
        stdin = cast("IO[bytes]", self._process.stdin)
        with suppress(BrokenPipeError):  # it has died: the answer that does not come says so
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def _read(self, failure: type[WorkerStartError | WorkerDiedError]) -> dict[str, Any]:
        stdout = cast("IO[bytes]", self._process.stdout)
        if not select.select([stdout], [], [], _DEADLINE)[0]:
            self._process.kill()
            raise failure(
                f"benchmark variant {self._name!r} did not answer within {_DEADLINE:.0f} s; try a smaller --n"
            )
        line = stdout.readline()
        if not line:
            raise failure(f"benchmark variant {self._name!r} died with status {self._process.wait(_EXIT)}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise failure(f"benchmark variant {self._name!r} failed:\n{message['error']}")
        return message


@dataclass(frozen=True, slots=True)
class Samples:
    """What the rounds gave: ``figures[variant]`` is one ``Measures`` a round; ``skipped`` holds reasons."""

    figures: Mapping[str, Sequence[Measures]]
    skipped: Mapping[str, str]

    def of(self, figure: str, *, prefix: str = "") -> dict[str, list[float]]:
        """One figure of every variant that measures it, a value a round."""
        return {
            name: [measures[figure] for measures in rounds]
            for name, rounds in self.figures.items()
            if name.startswith(prefix) and rounds and figure in rounds[0]
        }


def run_rounds(variants: Sequence[Variant], rounds: int) -> Samples:
    """Measure variants against each other: a round of each in turn, with the order rotated from round to round.

    One round of each is run before and thrown away: files are in the page cache then, kernels compiled, pools warm.
    (Not for variants that start a fresh process each round, whose cold start is what is measured.)

    Args:
        variants: with distinct names.
        rounds: measured rounds.

    Raises:
        WorkerStartError: a variant cannot be made ready.
        WorkerDiedError: a variant broke down in a round.
    """
    skipped: dict[str, str] = {}
    children: dict[str, Child] = {}
    with ExitStack() as stack:
        for variant in (variant for variant in variants if not variant.fresh):
            try:
                child = stack.enter_context(Child(variant))
            except MissingError as reason:
                skipped[variant.name] = str(reason)
                continue
            child.measure()
            children[variant.name] = child
        able = [variant for variant in variants if variant.name not in skipped]
        figures: dict[str, list[Measures]] = {variant.name: [] for variant in able}
        for number in range(rounds):
            for variant in rotated(able, number):
                figures[variant.name].append(_round(variant, children.get(variant.name)))
    return Samples(figures, skipped)


def _round(variant: Variant, child: Child | None) -> Measures:
    if child is not None:
        return child.measure()
    with Child(variant) as fresh:
        return fresh.measure()


def rotated(variants: Sequence[Variant], number: int) -> list[Variant]:
    """The order of round ``number``: each variant is the first in turn."""
    start = number % len(variants) if variants else 0
    return [*variants[start:], *variants[:start]]
