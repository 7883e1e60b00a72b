"""A Milvus that is not there: said at once where nothing has begun, waited for and shown where something has."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from penstock.engine import Accounting, Report
from penstock.engine.cli import main
from penstock.engine.jobs.common.drive import WithFigures
from penstock.engine.observe.progress import summary
from penstock.errors import SinkError, SinkUnavailableError
from penstock.sinks import MilvusSink, ParquetBulkSink, RowBatch
from penstock.sinks.milvus import connection as milvus_connection
from penstock.sinks.milvus.errors import UnreachableError
from penstock.sinks.milvus.outage import Outage
from penstock.tests.waiting import wait_until

OUTAGE = "penstock.sinks.milvus.outage"


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def knocks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were tried."""
    tried: list[str] = []
    knock = milvus_connection.knock

    def noted(address: str, seconds: float) -> None:
        tried.append(address)
        knock(address, seconds)

    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(milvus_connection, "knock", noted)
    return tried


@pytest.mark.slow
@pytest.mark.parametrize("command", ["embed", "search", "import"])
def test_a_server_that_is_not_there_is_said_at_once(
    command: str,
    nobody: str,
    knocks: list[str],
    photos: list[Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Nothing is tried again, and the message names an option that there is."""
    words = ["embed", str(photos[0]), "--to", nobody, "--workers", "1"]
    if command == "search":
        words = ["search", nobody, str(photos[0])]
    if command == "import":
        pytest.importorskip("pyarrow")
        with ParquetBulkSink(tmp_path, 4) as sink:
            sink.write(RowBatch(["key"], np.ones((1, 4), np.float32), [{}]))
        words = ["import", str(tmp_path), "--to", nobody]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert f"{nobody}: connection refused. Is Milvus running there?" in said
    assert "--retry-for SECONDS" in said
    assert knocks == [nobody]
    assert main([command, "--help"]) == 0
    assert "--retry-for SECONDS" in capsys.readouterr().out


def test_a_host_that_does_not_exist_is_said_at_once(knocks: list[str]) -> None:
    """With the words of the resolver."""
    sink = MilvusSink("http://nowhere.invalid:19530", "images", 4)
    with pytest.raises(SinkUnavailableError, match=r"nowhere\.invalid:19530: .*--retry-for"):
        sink.open()
    sink.close()
    assert len(knocks) == 1


def test_who_says_how_long_is_waited_for(nobody: str, knocks: list[str]) -> None:
    """Also at the start: for a server that is starting, too."""
    sink = MilvusSink(nobody, "images", 4, retry_for=600.0)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(sink.open)
        wait_until(lambda: len(knocks) > 1)
        sink.close()
        with pytest.raises(SinkError, match="closed during connection"):
            opening.result()


def test_a_proxy_is_not_passed_by(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gRPC goes through one, a server may be reached that a plain connection does not reach."""
    with pytest.raises(UnreachableError):
        milvus_connection.knock(nobody, 1.0)
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    milvus_connection.knock(nobody, 1.0)


def test_an_outage_is_told_once_at_each_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls fail in it."""
    monkeypatch.setattr(f"{OUTAGE}._WARN_AFTER", 0.0)
    outage = Outage("http://host:19530", 120.0)
    for _ in range(2):
        for _ in range(5):
            outage.failed("connection refused")
        assert outage.seconds > 0
        outage.answered()
        outage.answered()
        assert outage.seconds == 0
    waiting = (
        "waiting for Milvus at http://host:19530 (connection refused), for 120 s at most (--retry-for says how long)"
    )
    assert caplog.messages == [waiting, "Milvus at http://host:19530 answers again, after 0 s"] * 2


def test_a_hiccup_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is over before anybody could do anything about it."""
    caplog.set_level(logging.DEBUG)
    outage = Outage("http://host:19530", 120.0)
    outage.failed("connection reset")
    outage.answered()
    assert not caplog.messages


def test_progress_shows_how_long_the_store_has_been_waited_for() -> None:
    """And how long it will be; nothing of it while the store answers."""
    shown: list[str] = []

    class Shown:
        interval = 0.5

        def update(self, report: Report) -> None:
            shown.append(summary(report, None))

    stats = {"waiting": 0.0, "retry_for": 120.0}
    watcher = WithFigures(Shown(), lambda: {"store": stats})
    report = Report(Accounting(read=5, delivered=5))
    watcher.update(report)
    stats["waiting"] = 12.3
    watcher.update(report)
    assert watcher.interval == 0.5
    assert "waiting" not in shown[0]
    assert "waiting for the store, 12 of 120 s" in shown[1]
