"""A source outside of the package, in one file: pictures in an SQLite table, whose keys come in the order of bytes."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import penstock
from penstock import ConfigError, Report
from penstock.engine.cli import main
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.journal import read_status
from penstock.engine.sources import Broken, Item, Source, open_source
from penstock.errors import SourceError
from penstock.preprocess.sandbox import sandbox
from penstock.sinks import row_key
from penstock.testing.sources import SourceContract
from penstock.tests.drawn import encoded
from penstock.tests.whole_jobs import digest_of, started, stored, wait_for, written
from penstock.tests.whole_jobs import penstock as command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_plugins")]

NOISE = np.random.default_rng(0)
SMALL: dict[str, Any] = {"batch_size": 8, "insert_batch_size": 16, "workers": 2, "progress": "none"}
FLAGS = ["--batch-size", "8", "--insert-batch-size", "16", "--workers", "2", "--progress", "none"]


def picture() -> bytes:
    """The file of a small picture of noise."""
    return encoded(Image.fromarray(NOISE.integers(0, 256, (32, 32, 3), np.uint8)), "PNG")


def put(path: Path, rows: Mapping[str, bytes | None], version: int = 1) -> None:
    """Put rows into the table, which is made if it is not there."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS pictures (key TEXT PRIMARY KEY, picture BLOB, changed INTEGER)")
        records = [(key, data, version) for key, data in rows.items()]
        database.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?)", records)


def drop(path: Path, key: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM pictures WHERE key = ?", (key,))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 120 pictures whose keys a walk would have in another order: ``001-x`` before ``001/x``."""
    path = tmp_path / "pictures.db"
    put(path, {f"{number:03}{sign}x": picture() for number in range(60) for sign in "/-"})
    return path


def spec(table: Path) -> str:
    return f"sqlite:{table}?version=changed"


def run(table: Path, folder: Path, **settings: Any) -> Report:
    """The job in ``folder``, in this process; its source is named, or, where the job is new, given as it is."""
    own = {"to": str(folder / "rows.db"), "job": folder / "job"}
    source = spec(table) if folder.exists() else open_source([spec(table)])
    folder.mkdir(exist_ok=True)
    return penstock.embed_images(source, **own, **SMALL | settings)  # type: ignore[arg-type]


def keys(table: Path) -> list[str]:
    with closing(sqlite3.connect(table)) as database:
        return [key for (key,) in database.execute("SELECT key FROM pictures")]


def digests(folder: Path, *of: str) -> dict[str, str]:
    """Of the vectors in the store, by the keys of the pictures."""
    found = digest_of(folder, [row_key(key) for key in of])
    return {key: found[row_key(key)] for key in of if row_key(key) in found}


class TestTable(SourceContract):
    """The contract, for a table."""

    kinds = frozenset({Item, Broken})

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        names = ["a", "a-b", "a b", "a/b", "Z", "é", "\U0001f600", "b'x'", '"', "a?b=c&d"]
        put(tmp_path / "p #q.db", {**{name: picture() for name in names}, "none": None})
        return open_source([spec(tmp_path / "p #q.db")])


def test_a_table_that_is_not_there_is_refused(table: Path) -> None:
    """Before the job begins, with what SQLite says; an option that is none as a setting."""
    for wrong in (f"sqlite:{table}.not", f"sqlite:{table}?table=none", f"sqlite:{table}?key=none"):
        with pytest.raises(SourceError, match="cannot be read"):
            open_source([wrong])
    with pytest.raises(ConfigError, match="there is no option 'tabel', there are table, key, picture, version"):
        open_source([f"sqlite:{table}?tabel=x"])


@pytest.mark.kills
def test_a_job_that_is_killed_goes_on_and_ends_as_an_undisturbed_one(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, which makes the source again from what the job keeps; another run has nothing left to do."""
    killed, job = tmp_path / "killed", tmp_path / "killed" / "job"
    killed.mkdir()
    arguments = [spec(table), "--to", str(killed / "rows.db"), "--job", str(job), *FLAGS]
    with started(command("embed", *arguments)) as process:
        wait_for(process, lambda: written(killed) >= 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 20 <= written(killed) < 120
    assert main(["resume", str(job), "--progress", "none"]) == 0
    assert main(["resume", str(job)]) == 0
    assert "finished already: 120 entries: 120 written" in capsys.readouterr().out
    assert main(["status", str(job)]) == 0
    assert f"source: '{spec(table)}'" in capsys.readouterr().out
    run(table, tmp_path / "undisturbed")
    assert stored(killed) == 120
    assert digests(killed, *keys(table)) == digests(tmp_path / "undisturbed", *keys(table))


def test_an_update_does_new_and_changed_rows(table: Path, tmp_path: Path) -> None:
    """Anywhere among the others, which are left alone; what is gone is forgotten."""
    run(table, tmp_path / "a")
    before = digests(tmp_path / "a", *keys(table))
    put(table, {"030/x": picture()}, version=2)
    put(table, {"030-a": picture(), "030.new": picture()})
    drop(table, "031-x")
    assert run(table, tmp_path / "a").accounting.read == 0
    report = run(table, tmp_path / "a", update=True)
    assert (report.accounting.written, report.extra["job"]["entries"]) == (3, 121)
    after = digests(tmp_path / "a", *keys(table))
    assert {key for key in after if after[key] != before.get(key)} == {"030/x", "030-a", "030.new"}


def test_a_retry_does_dead_letters_again(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that was away; one that has changed since is not taken for what was listed, but by an update."""
    put(table, {"bad": b"no picture", "away": (away := picture()), "changed": picture()})
    job = tmp_path / "a" / "job"
    with pytest.MonkeyPatch.context() as patch:  # between the listing and the first read
        begun = JobCheckpoint.starts

        def changed(self: JobCheckpoint) -> None:
            drop(table, "away")
            put(table, {"changed": picture()}, version=2)
            begun(self)

        patch.setattr(JobCheckpoint, "starts", changed)
        run(table, tmp_path / "a")
    lines = (job / "dead-letters.jsonl").read_text().splitlines()
    letters = {letter["key"]: letter for letter in map(json.loads, lines)}
    assert {key: letter["error"] for key, letter in letters.items()} == {
        "bad": "UnreadableError",
        "away": "ReadError",
        "changed": "ReadError",
    }
    assert "has changed since it was listed: --update takes it" in letters["changed"]["message"]
    put(table, {"away": away})
    assert main(["retry", str(job), "--error", "ReadError"]) == 0
    counts = read_status(job).counts
    assert (counts.written, counts.dead, counts.remaining) == (121, 2, 0)
    assert main(["status", str(job)]) == 0
    assert "dead letters: UnreadableError 1, ReadError 1" in capsys.readouterr().out
    assert main(["resume", str(job), "--update"]) == 0
    assert read_status(job).counts.written == 122


@pytest.mark.skipif(not sandbox.means(), reason="this kernel has no means of a sandbox")
def test_confined_workers_have_their_rows_read_for_them(table: Path, tmp_path: Path) -> None:
    """The same vectors; what cannot be read is a dead letter as ever."""
    put(table, {"bad": b"no picture"})
    run(table, tmp_path / "a")
    report = run(table, tmp_path / "b", sandbox=True)
    assert (report.accounting.written, report.accounting.dead) == (120, 1)
    assert digests(tmp_path / "a", *keys(table)) == digests(tmp_path / "b", *keys(table))
    assert "pictures in memory" in report.extra["memory_ceiling"]["parts"]
