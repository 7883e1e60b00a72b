"""``penstock resume`` and ``retry``: what a later run may say otherwise, and what it may not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError
from penstock.engine import Accounting, Report
from penstock.engine.cli.commands import cli, main
from penstock.engine.cli.options import FIELDS, RUN_FIELDS, option_name
from penstock.engine.config.model import PER_RUN, ServiceConfig
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.fingerprints import begun_with, fingerprints
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.images import run_job as images
from penstock.engine.journal import read_status
from penstock.engine.sources import FileSource
from penstock.tests.whole_jobs import draw_folder

OTHERWISE: dict[str, Any] = {
    "workers": 3,
    "batch_size": 5,
    "slots": 7,
    "insert_batch_size": 9,
    "memory": "8GiB",
    "threads": 1,
    "devices": "0,1",
    "decoder": "simplejpeg",
    "max_failures": "5%",
    "on_failure": "embed=fail",
    "item_timeout": 5,
    "stall_after": 5,
    "max_pixels": 1_000_000,
    "max_side": 10_000,
    "max_file_bytes": "1MiB",
    "progress": "none",
    "list_filtered": "f.jsonl",
    "report": "r.json",
    "wait_index": 5,
    "token": "a:b",
    "retry_for": 5,
    "backlog": 9,
    "allow_hosts": ("pictures.example",),
    **{field: True for field in PER_RUN if ServiceConfig.model_fields[field].annotation is bool},
}
"""For each field that may differ from run to run, a value that is not the default."""

IDENTITY = {
    "to": "b.db",
    "collection": "others",
    "partition": "p",
    "embedder": "gist:128",
    "preset": "clip",
    "image_size": 224,
    "dtype": "float16",
    "background": "0,0,0",
}
"""For each field that says what a job is, another value."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job in ``job`` that was killed when it had listed its source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    draw_folder(tmp_path / "pictures", 2)
    config = ServiceConfig(to="rows.db", job=Path("job"), workers=4, batch_size=8, progress="none")
    with JobCheckpoint(config, make_plan(config), FileSource("pictures")):
        pass


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[ServiceConfig]:
    """The configurations of the runs that were asked for; none takes place."""
    asked: list[ServiceConfig] = []

    def run_job(config: ServiceConfig, *_: Any, **__: Any) -> Report:
        asked.append(config)
        return Report(Accounting(read=1, delivered=1))

    monkeypatch.setattr(images, "run_job", run_job)
    return asked


def identity_of(**settings: Any) -> Any:
    config = ServiceConfig(**{"to": "a.db", **settings})
    return fingerprints(config, make_plan(config), FileSource("pictures"))


def test_what_may_differ_from_run_to_run_is_no_part_of_what_a_job_is() -> None:
    """The options of ``resume`` and the fingerprints go by one list: neither has what the other refuses."""
    assert set(OTHERWISE) == PER_RUN
    assert not PER_RUN & set(IDENTITY)
    same = identity_of()
    for field, value in OTHERWISE.items():
        assert identity_of(**{field: value}) == same, field
    for field, value in IDENTITY.items():
        assert identity_of(**{field: value}) != same, field


@pytest.mark.parametrize("command", ["resume", "retry"])
def test_all_that_may_differ_is_an_option(command: str) -> None:
    """And nothing else of the configuration."""
    options = {option for parameter in cli.commands[command].params for option in parameter.opts}
    expected = PER_RUN - ({"update"} if command == "retry" else set())
    assert options & {option_name(field) for field in FIELDS} == {option_name(field) for field in expected}


def test_the_documentation_names_all_that_may_differ() -> None:
    """People look there for what they may turn after a job that was too large."""
    text = (Path(__file__).parents[1] / "docs" / "usage.md").read_text()
    (said,) = [part for part in text.split("\n\n") if part.startswith("`resume` and `retry` go on")]
    assert {option_name(name) for name in RUN_FIELDS} <= set(re.findall(r"--[a-z-]+", said))


def test_an_option_wins_over_the_run_before_and_the_rest_is_as_it_was(runs: list[ServiceConfig]) -> None:
    """After a job that was too large for its machine."""
    assert main(["resume", "job", "--workers", "1", "--memory", "2GiB", "--report", "r.json"]) == 0
    (config,) = runs
    assert (config.workers, config.batch_size, config.memory) == (1, 8, 2 << 30)
    assert (config.report, config.progress) == ((Path("r.json"),), "none")
    assert config.job == Path("job").absolute()


@pytest.mark.parametrize("command", ["resume", "retry"])
@pytest.mark.parametrize("given", [["--collection", "x"], ["--embedder=gist"], ["--overwrite"], ["--preset", "clip"]])
def test_what_a_job_is_cannot_be_changed_and_the_message_says_why(
    command: str, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not taken for a misspelled option."""
    assert main([command, "job", *given]) == 2
    said = capsys.readouterr().err
    assert f"{given[0].partition('=')[0]}: belongs to what the job was begun with" in said
    assert "--accept-changes" in said


def test_an_option_that_there_is_nowhere_is_refused_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    """With the nearest one."""
    assert main(["resume", "job", "--wrokers", "1"]) == 2
    assert "--workers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--workers", "0"], "--workers: '0' is not allowed"),
        (["--report", "r.pdf"], "must end in .json or .html"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_tried_again(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str], runs: list[ServiceConfig]
) -> None:
    """By its option."""
    for command in ("resume", "retry"):
        assert main([command, "job", *given]) == 2
        assert said in capsys.readouterr().err
    assert not runs


def test_python_may_change_the_same_things() -> None:
    """And no others."""
    config, _ = begun_with(read_status("job"), workers=2)
    assert (config.workers, config.batch_size) == (2, 8)
    with pytest.raises(ConfigError, match=r"^collection: belongs to what the job was begun with"):
        begun_with(read_status("job"), collection="x")
    with pytest.raises(ConfigError, match=r"^video_timeout: the job in .* is of a kind that has no such setting"):
        begun_with(read_status("job"), video_timeout=5)


@pytest.mark.slow
def test_a_job_goes_on_with_other_workers_and_batches(tmp_path: Path) -> None:
    """And the next run takes over what this one was told."""
    given = ["--workers", "1", "--batch-size", "1", "--slots", "1", "--report", "r.json", "--max-failures", "5%"]
    assert main(["resume", "job", *given]) == 0
    assert read_status("job").counts.written == 2
    assert (tmp_path / "r.json").is_file()
    config, _ = begun_with(read_status("job"))
    assert (config.workers, config.batch_size, config.report) == (1, 1, (tmp_path / "r.json",))
