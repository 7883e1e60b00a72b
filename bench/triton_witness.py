"""How busy a model of a Triton server is, by the server's own statistics."""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import time
from itertools import pairwise
from types import TracebackType
from typing import Any, NamedTuple, Self

_EVERY = 0.02
_STEADY = (0.2, 0.8)
"""The share of a run's requests between which it is in its steady state: neither starting nor draining."""


class Sample(NamedTuple):
    """What the server said at one moment: when, requests done so far, seconds the model has worked for them."""

    at: float
    done: int
    worked: float


class Witness:
    """Asks, from a process of its own, while the ``with`` block runs; then ``busy`` is the share of the steady state in
    which the model worked: between 0 and the number of its instances."""

    def __init__(self, server: str, model: str) -> None:
        self._command = [sys.executable, "-m", "penstock.bench.triton_witness", server, model]
        self.busy = 0.0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        said, _ = self._process.communicate()
        if kind is None:
            self.busy = busy([Sample(*sample) for sample in json.loads(said)])


def main(server: str, model: str) -> None:
    """Ask until standard input ends, then print all samples."""
    samples: list[Sample] = []
    connection = http.client.HTTPConnection(server, timeout=10)
    while not select.select([sys.stdin], [], [], _EVERY)[0]:
        samples.append(_ask(connection, model))
    print(json.dumps(samples))


def _ask(connection: http.client.HTTPConnection, model: str) -> Sample:
    connection.request("GET", f"/v2/models/{model}/stats")
    stats: dict[str, Any] = json.load(connection.getresponse())["model_stats"][0]["inference_stats"]
    # What an instance does for a request: takes its input over, runs the model, hands the output on.
    worked = sum(int(stats[step]["ns"]) for step in ("compute_input", "compute_infer", "compute_output"))
    return Sample(time.perf_counter(), int(stats["success"]["count"]), worked / 1e9)


def busy(samples: list[Sample]) -> float:
    """The share of time the model worked, over the steady state of a run.

    The server counts a request when it is done, so the window begins and ends where the count rises: at the end of a
    request.

    Raises:
        ValueError: too few requests to tell.
    """
    steps = [after for before, after in pairwise(samples) if after.done > before.done]
    if not steps:
        raise ValueError("the model did nothing while it was watched")
    first, last = steps[0].done, steps[-1].done
    low, high = (first + share * (last - first) for share in _STEADY)
    window = [sample for sample in steps if low <= sample.done <= high]
    if len(window) < 2:
        raise ValueError(f"only {last - first} requests were seen: too few for a steady state")
    begin, end = window[0], window[-1]
    return (end.worked - begin.worked) / (end.at - begin.at)


if __name__ == "__main__":
    main(*sys.argv[1:])
