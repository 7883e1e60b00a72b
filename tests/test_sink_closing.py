"""Closing a sink whose store does not answer: nobody waits, and nothing is left open."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from penstock.errors import SinkError
from penstock.sinks.milvus.connection import Connection
from penstock.sinks.milvus.uri import parse_uri
from penstock.tests.waiting import DEADLINE


class SlowClient:
    """A client that has taken its time to connect."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_closing_does_not_wait_for_a_thread_that_is_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """That thread closes what it has opened when it comes back, and its call says that the sink is closed."""
    connecting, answered, client = threading.Event(), threading.Event(), SlowClient()

    def connect(self: Connection, address: str) -> Any:
        connecting.set()
        assert answered.wait(DEADLINE)
        return client

    monkeypatch.setattr(Connection, "_connect", connect)
    connection = Connection(parse_uri("http://127.0.0.1:1"), "images", timeout=5.0, retry_for=5.0)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(connection.call, "write", lambda client, seconds: "written")
        assert connecting.wait(DEADLINE)
        connection.close()
        assert not call.done()
        answered.set()
        with pytest.raises(SinkError, match="closed"):
            call.result(DEADLINE)
    assert client.closed.is_set()
