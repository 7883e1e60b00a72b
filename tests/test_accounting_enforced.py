"""Books that do not add up are an error with the stage and the numbers, while a job runs, at its end and on resume.

Each test breaks them on purpose: nothing else can show that the checks can fail.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import penstock
from penstock.engine import PipelineBuilder, Report, StageReport
from penstock.engine.cli import main
from penstock.engine.core.channel import Channel
from penstock.engine.core.channel import Entry as Passing
from penstock.engine.core.stage import Emitter, Job
from penstock.engine.core.stage_aggregate import Aggregate
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.drive import Interrupt, drive
from penstock.engine.journal import Entry, JobFolder, Outcome, read_status
from penstock.engine.journal.log import of_records
from penstock.engine.journal.states import RECORD
from penstock.errors import AccountingError
from penstock.tests.waiting import DEADLINE

PICTURES = 24


def lose_one(monkeypatch: pytest.MonkeyPatch, stage: str, after: int = 0) -> threading.Event:
    """Have one stage forget an item that it holds, once so many have left it; the event is set then."""
    leave: Callable[[Emitter, Job], None] = Emitter._leave  # pyright: ignore[reportPrivateUsage]
    lost = threading.Event()

    def lossy(node: Emitter, job: Job) -> None:
        leave(node, job)
        if node.name == stage and node.meter.items_out > after and not lost.is_set():
            lost.set()
            node.meter.items_out -= 1

    monkeypatch.setattr(Emitter, "_leave", lossy)
    return lost


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of small pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(PICTURES):
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number:02}.png")
    return folder


def command(pictures: Path, tmp_path: Path) -> list[str]:
    to, job = str(tmp_path / "rows.db"), str(tmp_path / "job")
    own = [
        "--workers",
        "1",
        "--batch-size",
        "4",
        "--insert-batch-size",
        "8",
        "--embedder",
        "gist:32",
        "--progress",
        "none",
    ]
    return ["embed", str(pictures), "--to", to, "--job", job, *own]


# -- while it runs, and at its end ------------------------------------------------------------------------------------


def test_a_loss_is_noticed_while_the_pipeline_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is endless: nobody waits for the end to look."""
    lose_one(monkeypatch, "double", after=5)
    builder = PipelineBuilder().add_source(itertools.count()).pipe(lambda x: 2 * x, name="double").add_sink()
    with pytest.raises(AccountingError, match=r"books of stage 'double' do not balance: in \d+ .* = \d+: 1 missing"):
        drive(builder.build(num_threads=1), lambda _: None)


def test_a_loss_is_noticed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last item of all."""
    lose_one(monkeypatch, "double", after=19)
    builder = PipelineBuilder().add_source(range(20)).pipe(lambda x: 2 * x, name="double").add_sink()
    with pytest.raises(AccountingError, match=r"stage 'double' .*in 20 .*but out 19 .*1 missing"):
        drive(builder.build(num_threads=1), lambda _: None)


def test_a_loss_between_two_stages_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each balances by itself; the whole does not."""
    put, passed = Channel.put, itertools.count()

    def forgetful(channel: Channel, entry: Passing, lane: str | None = None) -> None:
        if entry.value != 7 or next(passed):
            put(channel, entry, lane)

    monkeypatch.setattr(Channel, "put", forgetful)
    builder = PipelineBuilder().add_source(range(1, 9)).pipe(lambda x: 2 * x, name="a").pipe(abs, name="b").add_sink()
    with pytest.raises(AccountingError, match=r"the books do not balance: read .* 1 missing") as caught:
        drive(builder.build(num_threads=1), lambda _: None)
    (note,) = caught.value.__notes__
    assert re.fullmatch(r"stage 'source' gave \d, stage 'a' got \d", note)


def test_what_is_in_flight_at_the_end_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that came too early: the books balance, and the items are nowhere."""
    monkeypatch.setattr(Aggregate, "_finish", lambda _: None)
    builder = PipelineBuilder().add_source(range(8)).aggregate(3).add_sink()
    with pytest.raises(AccountingError, match=r"of 8 read are in flight still: 2 at stage 'aggregate\(3\)'"):
        drive(builder.build(num_threads=1), lambda _: None)


def test_each_kind_of_difference_is_told() -> None:
    """Too few, too many; figures that were not taken together are not judged."""
    Report(
        stages=[StageReport("a", "green", items_in=3, created=1, items_out=1, dropped=1, failed=1, merged=1)]
    ).check()
    wrong = Report(stages=[StageReport("a", "green", items_in=3, items_out=4)])
    with pytest.raises(AccountingError, match=r"stage 'a' .*1 too many"):
        wrong.check()
    Report(stages=wrong.stages, approximate=True).check()


def test_a_report_beside_a_blocked_hub_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures may have been taken in the middle of a step."""
    monkeypatch.setattr("penstock.engine.pipeline.runtime._REPORT_SECONDS", 0.05)
    entered, go = threading.Event(), threading.Event()

    def block(x: int) -> int:
        entered.set()
        assert go.wait(DEADLINE)
        return x

    builder = PipelineBuilder().add_source([1]).pipe(block, kind="green").add_sink()
    with builder.build(num_threads=1).auto_stop() as pipeline:
        assert entered.wait(DEADLINE)
        beside = pipeline.snapshot()
        go.set()
        assert list(pipeline) == [1]
    assert beside.approximate
    assert not pipeline.report().approximate


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["source", "preprocess", "embed", "aggregate(8)", "insert"])
def test_the_command_ends_with_1_and_names_the_stage(
    stage: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One paragraph with stage and figures; what is written stays written, and the job can be resumed."""
    lost = lose_one(monkeypatch, stage)
    assert main(command(pictures, tmp_path)) == 1
    assert lost.is_set()
    said = capsys.readouterr().err
    assert f"the books of stage {stage!r} do not balance: in " in said
    assert "1 missing" in said
    monkeypatch.undo()
    assert main(["resume", str(tmp_path / "job")]) == 0
    assert read_status(tmp_path / "job").counts.written == PICTURES


@pytest.mark.slow
def test_a_journal_that_differs_from_the_stages_is_an_error_at_the_end(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outcome that was not recorded."""
    written = JobCheckpoint.written

    def forgetful(checkpoint: JobCheckpoint, ordinals: Sequence[int]) -> None:
        written(checkpoint, ordinals[1:])

    monkeypatch.setattr(JobCheckpoint, "written", forgetful)
    assert main(command(pictures, tmp_path)) == 1
    # one of each of the three calls to the store
    assert f"written: {PICTURES - 3} in the journal, {PICTURES} counted" in capsys.readouterr().err


def wait_embedder(pixels: Any) -> Any:
    """A model that takes longer for each batch than the engine waits for a source that is told to end."""
    threading.Event().wait(0.4)
    return np.ones((len(pixels), 4), np.float32)


@pytest.mark.slow
def test_an_early_end_leaves_no_difference_where_the_source_was_ahead(pictures: Path, tmp_path: Path) -> None:
    """What was drawn and never passed on: recorded as filtered, counted by no stage."""
    for number in range(PICTURES):
        (pictures / f"{number:02}.txt").write_text("no picture")
    interrupt = Interrupt()

    class AfterTheFirst:
        interval = 0.1

        def update(self, report: Report) -> None:
            if report.accounting.delivered:
                interrupt.request()

    report = penstock.embed_images(
        pictures,
        to=str(tmp_path / "rows.db"),
        job=tmp_path / "job",
        embedder="python:penstock.tests.test_accounting_enforced:wait_embedder",
        batch_size=1,
        insert_batch_size=1,
        workers=1,
        slots=1,
        interrupt=interrupt,
        watcher=AfterTheFirst(),
    )
    counts = read_status(tmp_path / "job").counts
    assert report.accounting.written == counts.written < PICTURES
    assert report.accounting.filtered < counts.filtered


# -- on resume --------------------------------------------------------------------------------------------------------


def begun(folder: Path, names: str) -> None:
    """A job's books, kept by hand: of so many pictures the first three are written."""
    settings = {"sources": [str(folder.parent)], "config": {"to": str(folder.parent / "rows.db")}}
    with JobFolder.create_or_open(folder) as job:
        job.accept({"source": "by hand"}, settings)
        job.write_snapshot(Entry(name) for name in names)
        job.written([range(3)])


@pytest.mark.parametrize("command", ["resume", "status", "retry"])
def test_a_journal_with_an_entry_too_many_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole and checksummed, but about entries that the listing does not have: nothing is done on such books."""
    begun(tmp_path / "job", "abcde")
    with (tmp_path / "job" / "journal-2").open("ab") as journal:
        journal.write(of_records(np.array([(Outcome.WRITTEN, 4, 6)], RECORD)))
    assert main([command, str(tmp_path / "job")]) == 1
    assert "ordinals 4 to 5 were recorded as WRITTEN, the snapshot has 5 entries" in capsys.readouterr().err


@pytest.mark.parametrize("names", ["abcd", "abcdef"])
def test_a_listing_of_another_length_is_refused(names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A snapshot that was put in the place of the one that the journal counts with."""
    begun(tmp_path / "job", "abcde")
    begun(tmp_path / "other", names)
    (tmp_path / "other" / "snapshot-1").rename(tmp_path / "job" / "snapshot-1")
    assert main(["resume", str(tmp_path / "job")]) == 1
    assert f"a listing of 5 entries, {tmp_path}/job/snapshot-1 has {len(names)}" in capsys.readouterr().err
