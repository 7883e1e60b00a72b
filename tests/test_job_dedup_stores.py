"""`penstock dedup` over the rows of a store: listed, deleted, flagged, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.engine.cli import main
from penstock.engine.config.dedup import DedupConfig
from penstock.engine.jobs.common.drive import Interrupt
from penstock.engine.jobs.common.sink_factory import sink_to_scan
from penstock.engine.jobs.dedup import run_dedup
from penstock.engine.jobs.dedup.run_dedup import dedup_store
from penstock.sinks import RowBatch, Sink, SinkOptions, make_sink, row_key
from penstock.sinks.milvus import whole

pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.slow

DIMENSION = 16
RULE = ("--rule", "vectors:0.97", "--progress", "none")

OWN_STORE = """
from pathlib import Path
from penstock.sinks.npy.sink import NpySink

def make(uri, options):
    return NpySink(Path(uri.partition(":")[2]), options.dimension)
"""


def rows() -> RowBatch:
    """Five distinct rows, and of each but the last a smaller near copy."""
    random = np.random.default_rng(0)
    distinct = random.standard_normal((5, DIMENSION))
    near = distinct[:4] + random.standard_normal((4, DIMENSION)) * 0.02
    keys = [row_key(f"{kind}{number}") for kind, n in (("large", 5), ("small", 4)) for number in range(n)]
    columns: list[dict[str, Any]] = [{"path": f"/{n}.jpg", "width": 9, "height": 9, "label": "é"} for n in range(5)]
    columns += [{"path": f"/{n}-small.jpg", "width": 3, "height": 3} for n in range(4)]
    return RowBatch(keys, np.concatenate([distinct, near]).astype(np.float32), columns)


EXPECTED = {row_key(f"small{number}"): row_key(f"large{number}") for number in range(4)}


def stored(uri: str) -> str:
    """A store with these rows."""
    with make_sink(uri, SinkOptions(dimension=DIMENSION)) as sink:
        sink.write(rows())
        sink.finish()
    return uri


def read(uri: str) -> dict[str, dict[str, Any]]:
    with make_sink(uri, SinkOptions()) as sink:
        return keyed(sink)


def keyed(sink: Sink) -> dict[str, dict[str, Any]]:
    scanner = sink.scanner()
    assert scanner is not None
    return {key: columns for some in scanner.scan() for key, columns in zip(some.keys, some.columns, strict=True)}


def listed(path: Path) -> dict[str, str]:
    return {row["key"]: row["duplicate_of"] for row in pq.read_table(path).to_pylist()}


@pytest.mark.parametrize("kind", ["", "parquet:", "npy:", "lance:"])
def test_the_rows_of_every_store_that_can_be_read_are_compared(tmp_path: Path, kind: str) -> None:
    """By the vectors that it holds; nothing in it changes."""
    if kind == "lance:":
        pytest.importorskip("lance")
    uri, to = stored(f"{kind}{tmp_path / 'rows.db'}"), tmp_path / "d.parquet"
    before = read(uri)
    assert main(["dedup", uri, "--to", str(to), *RULE]) == 0
    assert listed(to) == EXPECTED
    assert read(uri) == before


def test_the_rows_of_a_store_that_a_package_brings_are_compared(tmp_path: Path, install: Callable[..., None]) -> None:
    """By its scheme, as those of stores that are built in."""
    install("own_store", {"own-store": "own_store:make"}, OWN_STORE, "penstock.sinks")
    uri, to = stored(f"own-store:{tmp_path / 'rows'}"), tmp_path / "d.parquet"
    assert main(["dedup", uri, "--to", str(to), *RULE]) == 0
    assert listed(to) == EXPECTED


@pytest.mark.parametrize("kind", ["", "lance:"])
def test_rows_are_deleted_where_that_is_asked_for(tmp_path: Path, kind: str) -> None:
    """The others stay as they are, and a second run finds nothing."""
    if kind == "lance:":
        pytest.importorskip("lance")
    uri, to = stored(f"{kind}{tmp_path / 'rows.db'}"), tmp_path / "d.parquet"
    before = read(uri)
    assert main(["dedup", uri, "--to", str(to), "--delete", *RULE]) == 0
    assert listed(to) == EXPECTED
    assert read(uri) == {key: columns for key, columns in before.items() if key not in EXPECTED}
    assert main(["dedup", uri, "--to", str(to), *RULE]) == 0
    assert listed(to) == {}


def test_rows_are_flagged_and_a_flag_goes_with_its_reason(tmp_path: Path) -> None:
    """Nothing else of a row changes; under another threshold who stays has no flag."""
    uri, to = stored(str(tmp_path / "rows.db")), tmp_path / "d.parquet"
    before = read(uri)
    assert main(["dedup", uri, "--to", str(to), "--flag", *RULE]) == 0
    after = read(uri)
    assert {key: columns.pop("duplicate_of") for key, columns in after.items() if key in EXPECTED} == EXPECTED
    assert after == before
    assert main(["dedup", uri, "--to", str(to), "--flag", "--rule", "vectors:1", "--progress", "none"]) == 0
    assert {columns.get("duplicate_of", "") for columns in read(uri).values()} == {""}


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("", ("--rule", "default"), "vectors:0.97"),
        ("parquet:", ("--delete", *RULE), "delete"),
        ("npy:", ("--flag", *RULE), "flag"),
        ("npy:", ("--delete", "--flag", *RULE), "excludes"),
    ],
)
def test_what_a_store_cannot_do_is_refused_with_what_to_do_instead(
    tmp_path: Path, kind: str, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read, and as wrong usage."""
    uri, to = stored(f"{kind}{tmp_path / 'rows.db'}"), tmp_path / "d.parquet"
    assert main(["dedup", uri, "--to", str(to), *options]) == 2
    assert said in capsys.readouterr().err
    assert not to.exists()


def test_a_job_over_a_store_keeps_who_stayed(tmp_path: Path) -> None:
    """A larger copy that came later goes; with --rededup it stays instead."""
    uri, to, job = stored(f"npy:{tmp_path / 'rows'}"), tmp_path / "d.parquet", tmp_path / "job"
    command = ["dedup", uri, "--to", str(to), "--job", str(job), *RULE]
    assert main(command) == 0
    with make_sink(uri, SinkOptions(dimension=DIMENSION)) as sink:
        own = {"path": "/new.jpg", "width": 99, "height": 99}
        sink.write(RowBatch(["new"], rows().vectors[:1].copy(), [own]))
    assert main(command) == 0
    assert listed(to) == {**EXPECTED, "new": row_key("large0")}
    assert main([*command, "--rededup"]) == 0
    assert listed(to) == {**EXPECTED, row_key("small0"): "new", row_key("large0"): "new"}


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As wrong usage."""
    to = ["--to", str(tmp_path / "d.parquet")]
    assert main(["dedup", str(tmp_path / "none.db"), *to, *RULE]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert main(["dedup", f"parquet:{tmp_path / 'none'}", *to, *RULE]) == 1
    assert main(["dedup", str(tmp_path / "none.db"), str(tmp_path), *to, *RULE]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["read", "compared"])
def test_a_run_that_is_interrupted_deletes_nothing(tmp_path: Path, step: str) -> None:
    """While it reads the store, or while it compares."""
    uri, to = stored(str(tmp_path / "rows.db")), tmp_path / "d.parquet"
    config = DedupConfig(rule="vectors:0.97", delete=True, duplicates=to).model_copy(update={"to": uri})
    interrupt = Interrupt()

    def tells(what: str, done: int, total: int | None) -> None:
        del done, total
        if what == step:
            interrupt.request()

    with dedup_store(config, interrupt=interrupt, tells=tells) as done:
        assert done.decision is None
    assert not to.exists()
    assert len(read(uri)) == 9


def test_a_report_that_was_asked_for_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was found; one that cannot be is refused before anything is read."""
    uri, to, report = stored(f"npy:{tmp_path / 'rows'}"), tmp_path / "d.parquet", tmp_path / "report.json"
    assert main(["dedup", uri, "--to", str(to), "--report", str(report), *RULE]) == 0
    assert json.loads(report.read_text())["extra"]["dedup"]["duplicates"] == len(EXPECTED)
    assert main(["dedup", uri, "--to", str(to), "--report", str(tmp_path / "report.txt"), *RULE]) == 2
    assert "report" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["", "lance:"])
def test_rows_that_changed_after_they_were_read_are_not_deleted(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor those whose keepers did: what was decided says nothing of what is there now."""
    if kind == "lance:":
        pytest.importorskip("lance")
    uri, to = stored(f"{kind}{tmp_path / 'rows.db'}"), tmp_path / "d.parquet"
    config = DedupConfig(rule="vectors:0.97", delete=True, duplicates=to).model_copy(update={"to": uri})
    sink = sink_to_scan(config)
    monkeypatch.setattr(run_dedup, "sink_to_scan", lambda _: sink)

    def change(other: Sink) -> None:
        other.write(RowBatch([row_key("small0")], rows().vectors[4:5].copy(), [{}]))
        deleter = other.deleter()
        assert deleter is not None
        deleter.delete([row_key("large1")])

    def tells(what: str, done: int, total: int | None) -> None:
        if what == "compared" and done == total != 0:
            if not kind:
                change(sink)  # nobody else has a Milvus Lite store open
                return
            with make_sink(uri, SinkOptions(dimension=DIMENSION)) as other:
                change(other)

    with dedup_store(config, tells=tells) as done:
        assert done.left == 2
    assert {*EXPECTED} & {*read(uri)} == {row_key("small0"), row_key("small1")}


def test_rows_that_go_while_a_store_is_read_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a whole page of them does."""
    monkeypatch.setattr(whole, "_PAGE", 1)
    with make_sink(stored(str(tmp_path / "rows.db")), SinkOptions()) as sink:
        scanner, deleter = sink.scanner(), sink.deleter()
        assert scanner is not None
        assert deleter is not None
        pages = scanner.scan()
        assert len(next(pages)) == 1
        deleter.delete(rows().keys)
        assert list(pages) == []
