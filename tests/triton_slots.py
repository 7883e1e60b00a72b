"""What tests of the Triton embedder share: slots that count their pins, a hub of its own, a relay before a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
import numpy as np
from numpy.typing import NDArray

from penstock.engine.embedders import Embedder
from penstock.engine.embedders.triton.address import HostPort
from penstock.engine.embedders.triton.io_backend import ThreadIo
from penstock.engine.embedders.triton.over_http import HttpTransport
from penstock.engine.servers import TritonServer
from penstock.preprocess.slot_layout import pixel_view
from penstock.shm import Place, Ring
from penstock.tests.waiting import DEADLINE


class SlotOfRing:
    """A slot, as the pool leases it, that counts who pins it."""

    def __init__(self, ring: Ring, slot: int) -> None:
        view = pixel_view(ring.view(slot))
        self.pixels: NDArray[Any] = view.pixels
        self.embeddings = view.embeddings
        self.place: Place | None = ring.place(slot)
        self.pins = 0
        self.held_ever = 0

    def pin(self) -> Callable[[], None]:
        """See ``View``."""
        self.pins += 1
        self.held_ever += 1
        once = [True]

        def release() -> None:
            if once:
                once.pop()
                self.pins -= 1

        return release

    def mark(self, row: int, what: int) -> None:
        """Ask the model ``faulty`` for something at this row."""
        self.pixels[row, 0, 0, 0] = what


def slots(ring: Ring, seed: int = 0) -> list[SlotOfRing]:
    """All slots of a ring, full of noise below the values that models take for marks."""
    views = [SlotOfRing(ring, slot) for slot in range(ring.slots)]
    for number, view in enumerate(views):
        noise = np.random.default_rng(seed + number).integers(0, 250, view.pixels.shape)
        view.pixels[:] = noise.astype(view.pixels.dtype)
    return views


def in_hub(embedder: Embedder, *works: Callable[[], object], beside: Callable[[], object] | None = None) -> None:
    """Do `works` at once in greenlets of a hub in a thread of its own, and `beside` in the calling thread meanwhile."""
    errors: list[BaseException] = []

    def thread() -> None:
        try:
            embedder.start_in_hub()
            try:
                gevent.joinall([gevent.spawn(work) for work in works], raise_error=True, timeout=DEADLINE)
            finally:
                embedder.stop_in_hub()
        except BaseException as error:
            errors.append(error)
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    runner = threading.Thread(target=thread)
    runner.start()
    try:
        if beside is not None:
            beside()
    finally:
        runner.join(DEADLINE)
        assert not runner.is_alive()
    if errors:
        raise errors[0]


def transport(server: TritonServer) -> HttpTransport:
    """A connection to ask the server itself."""
    host, _, port = server.http.partition(":")
    return HttpTransport(HostPort(host, int(port)), ThreadIo())


def regions(server: TritonServer) -> list[str]:
    """What the server has mapped."""
    asked = transport(server)
    try:
        return asked.regions()
    finally:
        asked.close()


@contextmanager
def relay(target: str) -> Generator[tuple[str, list[int], Callable[[], None]]]:
    """A TCP relay before a server: its address, bytes to the server and back so far, and what cuts all it carries."""
    host, _, port = target.partition(":")
    counts = [0, 0]
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, sink: socket.socket, way: int) -> None:
        try:
            while data := source.recv(1 << 18):
                counts[way] += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((host, int(port)))
            sockets.extend((client, server))
            for pair in ((client, server, 0), (server, client, 1)):
                threads.append(threading.Thread(target=pump, args=pair))
                threads[-1].start()

    def cut() -> None:
        for end in sockets:
            with suppress(OSError):  # it may be gone already
                end.shutdown(socket.SHUT_RDWR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", counts, cut
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            threads[0].join(DEADLINE)
            cut()
            for thread in threads[1:]:
                thread.join(DEADLINE)
            for end in sockets:
                end.close()
