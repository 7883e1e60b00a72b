"""Connections to a Triton server over HTTP."""

from __future__ import annotations

import socket
import threading

from penstock.engine.embedders.triton.address import HostPort
from penstock.engine.embedders.triton.over_http import HttpTransport
from penstock.engine.embedders.triton.waiting import InThread

SECONDS = 30.0
_NO_REGIONS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


def test_a_request_that_outlives_its_transport_closes_its_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        host, port = listener.getsockname()
        transport = HttpTransport(HostPort(host, port), InThread())
        asking = threading.Thread(target=transport.regions, daemon=True)
        asking.start()
        server, _ = listener.accept()
        with server:
            server.settimeout(SECONDS)
            assert b"systemsharedmemory" in server.recv(65536)
            transport.close()
            server.sendall(_NO_REGIONS)
            asking.join(SECONDS)
            assert not asking.is_alive()
            assert server.recv(1) == b"", "the other end is still open"
