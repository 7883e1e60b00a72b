"""A marker secret in every credential field, then failures at each stage: it is nowhere to be found (S6).

The parts have tests of their own (``test_config``: repr, dumps, errors, help; ``test_sink_milvus``: the sink's errors,
logs and a server that repeats the token; ``test_sink_milvus_lite``: its child; ``test_sink_dead_letters``: addresses in
letters). Here it is whole jobs, and everything they print, log, write and start.
"""

from __future__ import annotations

import json
import logging
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock import ImageEmbeddingPipeline, Report, ServiceConfig, embed_images
from penstock.engine.cli import main
from penstock.sinks import MilvusSink

MARKER = "MARKER5b1f9e"

WRONG = [
    f"ftp://user:{MARKER}@host/x",
    f"http://user:{MARKER}@host:no-port",
    f"http://user:{MARKER}@host:99999999",
    f"http://user:{MARKER}@host/a/b",
    f"http://user:{MARKER}@host/x?y=z",
    f"http://user:{MARKER}@[::1/x",
    f"milvus://{MARKER}@host",
    f"nowhere://user:{MARKER}@host/p.db",
]


pytestmark = pytest.mark.usefixtures("own_fork_server")


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> str:
    """All that was printed and logged."""
    output = capfd.readouterr()
    return f"{output.out}\n{output.err}\n{caplog.text}\n{[record.__dict__ for record in caplog.records]}"


def files_with_marker(folder: Path) -> list[Path]:
    """Files below a folder that hold the secret."""
    return [path for path in folder.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]


@pytest.mark.parametrize("to", WRONG)
@pytest.mark.parametrize("command", ["embed", "search"])
def test_an_address_that_is_wrong_is_refused_without_its_secret(
    to: str,
    command: str,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With --debug too, where tracebacks name every cause."""
    monkeypatch.chdir(tmp_path)
    line = [str(photos[0]), "--to", to, "--progress", "none"] if command == "embed" else [to, str(photos[0])]
    assert main(["--debug", command, *line]) in (1, 2)
    text = said(capfd, caplog)
    assert "Traceback" in text
    assert MARKER not in text
    assert not files_with_marker(tmp_path)


def test_a_wrong_token_in_a_file_is_not_repeated(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Errors about the file name the field and the line."""
    (tmp_path / "c.yaml").write_text(f"to: p.db\ntoken: [{MARKER}]\n")
    assert main(["--debug", "embed", ".", "--config", str(tmp_path / "c.yaml")]) == 2
    output = capfd.readouterr()
    assert "token" in output.err
    assert MARKER not in output.out + output.err


@pytest.mark.slow
@pytest.mark.parametrize("where", ["address", "environment", "option"])
def test_a_store_that_is_gone_is_reported_without_the_secret(
    where: str,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody listens: the job fails, with report, tracebacks and logs of all libraries."""
    monkeypatch.chdir(tmp_path)
    defaults: Any = MilvusSink.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "retry_for", 0.3)
    to = f"http://user:{MARKER}@127.0.0.1:1/db" if where == "address" else "http://127.0.0.1:1/db"
    if where == "environment":
        monkeypatch.setenv("MILVUS_TOKEN", MARKER)
    token = ["--token", MARKER] if where == "option" else []
    line = [str(photos[0]), "--to", to, *token, "--job", "job", "--report", "r.html", "--workers", "1"]
    assert main(["--debug", "embed", *line, "--progress", "json"]) == 1
    text = said(capfd, caplog)
    assert "127.0.0.1:1" in text
    assert MARKER not in text
    assert (tmp_path / "r.html").exists()
    assert not files_with_marker(tmp_path)


class Spy:
    """A watcher that looks at what is started while the job runs."""

    interval = 0.0

    def __init__(self) -> None:
        self.seen: dict[int, bytes] = {}

    def update(self, report: Report) -> None:
        del report
        for child in psutil.Process().children(recursive=True):
            place = Path(f"/proc/{child.pid}")
            try:
                self.seen[child.pid] = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
            except OSError:  # it has just ended
                continue


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [False, True], ids=["free", "sandbox"])
def test_a_job_with_a_worker_that_crashes_leaks_nothing(
    sandbox: bool,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not into dead letters, reports, logs, the store, nor the arguments and environments of what it starts; and the
    worker that decodes has no secret in its environment that it could lose."""
    monkeypatch.setenv("MILVUS_TOKEN", MARKER)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"crash_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CRASH)
    (tmp_path / "in").mkdir()
    for number, data in enumerate([*(photo.read_bytes() for photo in photos[:6]), b"\xff\xd8\xffbroken"]):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(data)
    (tmp_path / "in" / "crash.jpg").write_bytes(photos[0].read_bytes()[:-2] + b"crash")
    spy = Spy()
    config = ServiceConfig(
        to=str(tmp_path / "p.db"),
        embedder=f"jax:{name}:embed",
        workers=1,
        batch_size=4,
        job=tmp_path / "job",
        report=tmp_path / "r.html",
        sandbox=sandbox,
    )
    assert config.token is not None
    embed_images(tmp_path / "in", config=config, watcher=spy)
    letters = [json.loads(line) for line in (tmp_path / "job" / "dead-letters.jsonl").read_text().splitlines()]
    assert {"PoisonItemError"} < {letter["error"] for letter in letters}
    assert len(spy.seen) >= 3
    assert not [pid for pid, text in spy.seen.items() if MARKER.encode() in text]
    text = said(capfd, caplog)
    assert "SIGKILL" in text
    assert MARKER not in text
    assert MARKER not in repr(config)
    assert not files_with_marker(tmp_path)


CRASH = textwrap.dedent(
    """
    import os, signal
    from penstock.preprocess.worker.preprocessor import Preprocessor

    assert "MARKER" not in repr(dict(os.environ))
    load = Preprocessor.load

    def patched(self, row, source):
        if bytes(source).endswith(b"crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, row, source)

    Preprocessor.load = patched

    def embed(pixels):
        return pixels.mean(axis=(2, 3))
    """
)


def test_repr_of_what_holds_a_secret_shows_none(tmp_path: Path) -> None:
    """Configuration, pipeline and sink can be printed by a debugger or a notebook."""
    config = ServiceConfig(to=f"http://user:{MARKER}@host:19530", token=MARKER, job=tmp_path)
    with ImageEmbeddingPipeline(config) as pipeline:
        shown: list[Any] = [config, pipeline, pipeline.config, MilvusSink(f"http://u:{MARKER}@host", "c", 4)]
        assert MARKER not in "\n".join([*map(repr, shown), *map(str, shown)])
        assert not list(tmp_path.iterdir())
