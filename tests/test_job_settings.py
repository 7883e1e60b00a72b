"""What a job keeps of the command it was begun with: enough to go on from any folder, and nothing secret."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.fingerprints import begun_with, settings_of
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.journal import JobFolder, Outcome, read_status
from penstock.engine.sources import FileSource
from penstock.tests.whole_jobs import draw_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to be in, with some pictures, and no token in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    draw_folder(tmp_path / "pictures", 3)
    return tmp_path


@contextmanager
def books_of(*sources: str, null: bool = False, **settings: Any) -> Generator[JobCheckpoint]:
    """The books of a job in ``job``, as a run has them before there are workers."""
    config = ServiceConfig(**{"to": "rows.db", "job": Path("job"), **settings})
    with JobCheckpoint(config, make_plan(config), FileSource(sources, null=null)) as books:
        yield books


def begin(*sources: str, **settings: Any) -> None:
    """A job that was killed when it had listed its source."""
    with books_of(*sources, **settings):
        pass


def test_every_place_can_be_named_from_another_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources, store, metadata, report and the file of a model; all else is kept as it was given."""
    settings: dict[str, Any] = {"metadata": Path("m.csv"), "report": Path("r.json"), "mode": "overwrite", "workers": 3}
    Path("list.txt").write_text("a.png\n")
    begin("pictures", "@list.txt", **settings)
    monkeypatch.chdir("/")
    config, source = begun_with(read_status(here / "job"), update=False)
    assert source.specs == (str(here / "pictures"), f"@{here / 'list.txt'}")
    assert (config.to, config.metadata, config.report) == (str(here / "rows.db"), here / "m.csv", (here / "r.json",))
    assert (config.mode, config.workers, config.job) == ("overwrite", 3, here / "job")


def test_settings_are_those_of_the_latest_run(here: Path) -> None:
    """A limit that was too low is not what `penstock resume` comes back with."""
    begin("pictures", memory="8GiB", workers=1)
    begin("pictures", memory="12GiB")
    config, _ = begun_with(read_status(here / "job"), update=False)
    assert (config.memory, config.workers) == (12 * 2**30, None)


def test_a_job_that_is_refused_leaves_no_folder(here: Path) -> None:
    """There is nothing to go on with."""
    with pytest.raises(ConfigError, match="no_such_module"):
        begin("pictures", embedder="python:no_such_module:embed")
    assert not (here / "job").exists()


def test_what_is_about_the_books_is_refused_where_none_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """It would do nothing."""
    assert main(["embed", "pictures", "--to", "rows.db", "--update"]) == 2
    assert "--job" in capsys.readouterr().err


def test_the_file_of_a_model_is_named_from_the_root(here: Path) -> None:
    """With its options."""
    config = ServiceConfig(to="rows.db", embedder="onnx:models/clip.onnx?threads=2")
    kept = settings_of(config, FileSource("pictures"))["config"]["embedder"]
    assert kept == f"onnx:{here}/models/clip.onnx?threads=2"


@pytest.mark.parametrize("to", ["http://user:MARKER@host:19530", "http://host:19530"])
def test_a_token_is_not_kept_but_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    """However it was given; the message names the variable it is read from."""
    begin("pictures", to=to, **({} if "@" in to else {"token": "MARKER"}))
    assert "MARKER" not in (here / "job" / "job.json").read_text()
    found = read_status("job")
    with pytest.raises(ConfigError, match=r"token for http://host:19530.*MILVUS_TOKEN"):
        begun_with(found, update=False)
    monkeypatch.setenv("MILVUS_TOKEN", "user:MARKER")
    config, _ = begun_with(found, update=False)
    assert config.token is not None
    assert config.to == "http://host:19530"


def test_a_job_in_a_file_needs_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment had one."""
    monkeypatch.setenv("MILVUS_TOKEN", "other")
    begin("pictures")
    monkeypatch.delenv("MILVUS_TOKEN")
    assert begun_with(read_status("job"), update=False)[0].token is None


@pytest.mark.parametrize("same", ["pictures/", "./pictures", "pictures/.", "{here}//pictures//"])
def test_a_source_may_be_spelled_otherwise(here: Path, same: str) -> None:
    """With a slash at its end, with dots, from the root: it is the same job."""
    begin("pictures")
    begin(same.format(here=here))
    assert len(read_status("job").fingerprints["source"].split()) == 1


def test_a_list_ended_by_nul_is_read_so_again(here: Path) -> None:
    """Reading it otherwise is another job, until it is accepted."""
    names = [str(here / "pictures" / f"000{number}.png") for number in range(2)]
    Path("list").write_text("\0".join(names))
    begin("@list", null=True)
    assert read_status("job").counts.total == 2
    config, source = begun_with(read_status("job"), update=True)
    with JobCheckpoint(config, make_plan(config), source) as books:
        assert (books.counts.total, books.remaining) == (2, 2)
    with pytest.raises(ConfigError, match=r"source was @\S+ --null, and is @\S+ now"):
        begin("@list")


def test_a_list_on_standard_input_is_not_taken_for_empty(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``resume --update`` cannot read it again; the listing stays, and the message says what to do."""
    config = ServiceConfig(to="rows.db", job=Path("job"))
    with (here / "pictures" / "list").open("w+b") as file:
        file.write(b"pictures/0000.png\n")
        file.seek(0)
        with JobCheckpoint(config, make_plan(config), FileSource("-", stdin=file)):
            pass
    assert main(["resume", "job", "--update"]) == 2
    assert "pipe the list into the command that it was begun with and add --update" in capsys.readouterr().err
    assert read_status("job").counts.total == 1
    assert begun_with(read_status("job"), update=False)[1].specs == ("-",)


def test_a_list_that_is_gone_does_not_matter_once_it_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Its entries are in the books; only to list them again it must be there."""
    Path("list").write_text("pictures/0000.png\n")
    begin("@list")
    Path("list").unlink()
    config, source = begun_with(read_status("job"), update=False)
    with JobCheckpoint(config, make_plan(config), source) as books:
        assert books.remaining == 1
    assert main(["resume", "job", "--update"]) == 2
    assert "cannot be opened" in capsys.readouterr().err


def test_the_folder_of_a_job_is_made_with_its_parents(here: Path) -> None:
    """No disk is blamed for it."""
    begin("pictures", job=Path("a/b/c"))
    assert read_status(here / "a/b/c").counts.total == 3


def test_another_source_that_is_accepted_is_listed(here: Path) -> None:
    """What both hold keeps its outcome, what is new is to be done; it is not accepted before it is listed."""
    draw_folder(here / "more", 2)
    begin("pictures")
    with books_of("pictures") as books:
        books.dead([0, 1, 2])
    with pytest.raises(ConfigError, match="source was"):
        begin("pictures", "more")
    with books_of("pictures", "more", accept_changes=True) as books:
        assert (books.counts.dead, books.remaining, books.counts.total) == (3, 2, 5)
    events = [event["event"] for event in read_status("job").events]
    assert events == ["listed", "renewed", "accepted"]
    with books_of("more", accept_changes=True) as books:
        assert {Path(entry.key).parent.name for entry in books.entries()} == {"more"}


def test_a_job_whose_rows_are_all_to_be_done_again_is_begun_all_the_same(here: Path) -> None:
    """Else an overwriting job would clear its collection once more, when every file has changed."""
    begin("pictures", mode="overwrite")
    with books_of("pictures") as books:
        assert not books.begun
    with JobFolder.create_or_open("job") as job:
        job.written([0, 1])
    for path in (here / "pictures").iterdir():
        path.write_bytes(b"changed")
    with books_of("pictures", update=True) as books:
        assert books.begun
    with books_of("pictures") as books:
        assert books.begun
        assert books.counts.written == 0
    with JobFolder.create_or_open("job") as job:
        assert [ordinal for ordinal, _ in job.entries(Outcome.UNDONE)] == [0, 1, 2]
