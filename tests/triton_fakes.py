"""Servers that exist in the test only: for orderings that a real one does not keep on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import gevent

from penstock.engine.embedders.triton.address import HostPort
from penstock.engine.embedders.triton.endpoint_pool import Endpoint, EndpointPool
from penstock.engine.embedders.triton.io_backend import GreenletIo, IoBackend, ThreadIo
from penstock.engine.embedders.triton.owner import Owner
from penstock.engine.embedders.triton.regions import Regions
from penstock.engine.embedders.triton.transport import Answer, Query, Transport
from penstock.shm import Place
from penstock.tests.waiting import DEADLINE

PLACE = Place("penstock-" + "0" * 32, 4096, {"pixels": 64, "embeddings": 128})


class Scripted:
    """A `Transport` whose registrations answer as told."""

    piece: int | None = None

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def _next(self, what: str) -> None:
        self.asked.append(what)
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    def register(self, region: str, key: str, nbytes: int) -> None:
        self._next(f"register {key} {nbytes}")

    def unregister(self, region: str) -> None:
        self._next("unregister")

    def regions(self) -> list[str]:
        return []

    def metadata(self, model: str, version: str) -> Mapping[str, Any]:
        raise AssertionError

    config = metadata

    def models(self) -> list[str]:
        raise AssertionError

    def ready(self, model: str, version: str) -> bool:
        raise AssertionError

    def infer(self, query: Query, seconds: float) -> Answer:
        raise AssertionError

    def close(self) -> None:
        self.asked.append("close")


def regions_with(transport: Transport, io: IoBackend | None = None) -> Regions:
    return Regions("here", transport, io or ThreadIo(), Owner.current(), {})


def pool(
    count: int = 1,
    *,
    well: bool | Callable[[Endpoint], bool] = True,
    trial: Callable[[Endpoint], object] = lambda _: None,
    patience: float = 5.0,
    capacity: int = 1,
    io: IoBackend | None = None,
) -> EndpointPool:
    """Servers ``h:1``, ``h:2``..., which are as well as `well` says."""
    check = well if callable(well) else lambda _: bool(well)
    endpoints: list[Endpoint] = []
    for number in range(count):
        transport = Scripted()
        endpoints.append(Endpoint(HostPort("h", number + 1), transport, regions_with(transport, io), capacity))
    return EndpointPool("test", endpoints, io or ThreadIo(), check, trial, patience)


def on_a_hub(work: Callable[[GreenletIo], object]) -> None:
    """Do `work` in a greenlet of a hub in a thread of its own, within 20 s."""
    errors: list[BaseException] = []

    def thread() -> None:
        io = GreenletIo(threads=2)
        try:
            gevent.spawn(work, io).get(timeout=DEADLINE)
        except BaseException as error:
            errors.append(error)
        finally:
            io.stop()
            gevent.get_hub().destroy(destroy_loop=True)

    runner = threading.Thread(target=thread)
    runner.start()
    runner.join(DEADLINE)
    assert not runner.is_alive()
    if errors:
        raise errors[0]
