"""A benchmark's child process: ``python -m penstock.bench.child``. Holds one variant, runs a round when asked.

Every variant has a process of its own, so that none inherits another's heap, threads or JAX backend; between its
rounds a child is blocked in ``read`` and costs nothing. It answers one JSON line for each line it is sent (the first
is its specification), and ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import IO, Any

from ..lazy import import_named

Measures = Mapping[str, float]
"""Figures of one round, by name."""

Measure = Callable[[], Measures]
"""Runs one round."""

Factory = Callable[..., AbstractContextManager[Measure]]
"""Makes a variant ready to be measured; what it holds is given back at the exit."""


def main() -> None:
    """Serve the variant that the first line (JSON: target, args, core) names."""
    spec = json.loads(sys.stdin.readline())
    if spec["core"] is not None:
        os.sched_setaffinity(0, {spec["core"]})  # before any library asks how many cores there are
    # what libraries print must not get between the answers
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        try:
            _serve(resolve(spec["target"]), spec["args"], answers)
        except Exception as error:  # noqa: BLE001  (told to the parent, which raises)
            _answer(answers, _failure(error))


def resolve(target: str) -> Factory:
    """The factory ``module:function`` of this package."""
    factory: Factory = import_named(f"penstock.bench.{target}")
    return factory


def _serve(factory: Factory, args: Mapping[str, Any], answers: IO[str]) -> None:
    with factory(**args) as measure:
        _answer(answers, {})
        while sys.stdin.readline():
            _answer(answers, measure())


def _failure(error: Exception) -> dict[str, str]:
    """A library that is not there costs its variant; anything else, a module of our own included, the benchmark."""
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("penstock"):
        return {"missing": f"{error.name} is not installed"}
    return {"error": traceback.format_exc()}


def _answer(answers: IO[str], message: Mapping[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
