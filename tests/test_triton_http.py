"""Connections to a Triton server over HTTP."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest

from penstock.engine.embedders.triton import over_http
from penstock.engine.embedders.triton.address import HostPort
from penstock.engine.embedders.triton.io_backend import ThreadIo
from penstock.engine.embedders.triton.over_http import HttpTransport
from penstock.tests.waiting import DEADLINE

_NO_REGIONS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


def test_a_request_that_outlives_its_transport_closes_its_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        host, port = listener.getsockname()
        transport = HttpTransport(HostPort(host, port), ThreadIo())
        asking = threading.Thread(target=transport.regions, daemon=True)
        asking.start()
        server, _ = listener.accept()
        with server:
            server.settimeout(DEADLINE)
            assert b"systemsharedmemory" in server.recv(65536)
            transport.close()
            server.sendall(_NO_REGIONS)
            asking.join(DEADLINE)
            assert not asking.is_alive()
            assert server.recv(1) == b"", "the other end is still open"


def test_a_server_that_drips_its_answer_does_not_outlive_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the head nor in the content: no single read is slow."""
    monkeypatch.setattr(over_http, "CONTROL_SECONDS", 0.4)
    for dripped in (b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 400, _NO_REGIONS.replace(b": 2", b": 400")):
        stop = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(DEADLINE)
            host, port = listener.getsockname()
            transport = HttpTransport(HostPort(host, port), ThreadIo())

            def drip(listener: socket.socket, said: bytes, stop: threading.Event) -> None:
                server, _ = listener.accept()
                with server, suppress(OSError):  # the client goes away, which is the point
                    server.sendall(said[:60])
                    for byte in said[60:] + b" " * 400:
                        if stop.wait(0.05):
                            return
                        server.sendall(bytes([byte]))

            dripping = threading.Thread(target=drip, args=(listener, dripped, stop))
            dripping.start()
            with pytest.raises(TimeoutError):
                transport.regions()
            stop.set()
            dripping.join(DEADLINE)
            transport.close()


def test_a_connection_serves_one_request_after_another() -> None:
    """Short answers, long ones, and such as come in chunks."""
    answers = (
        _NO_REGIONS,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n[" + b" " * 2999998 + b"]",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]",
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        host, port = listener.getsockname()

        def serve() -> None:
            server, _ = listener.accept()
            with server:
                for answer in answers:
                    assert b"systemsharedmemory" in server.recv(65536)
                    server.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        transport = HttpTransport(HostPort(host, port), ThreadIo())
        assert [transport.regions() for _ in answers] == [[], [], [], []]
        serving.join(DEADLINE)
        transport.close()
