"""The command line as its user meets it: help, wrong usage, what is asked for, searching. The job is replaced here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.engine import Accounting, Report, StageReport
from penstock.engine.cli.commands import cli, main
from penstock.engine.cli.options import FIELDS, option_name
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.memory_estimate import estimate_memory
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.images import run_job as images
from penstock.engine.jobs.images import search
from penstock.engine.sources import Entry
from penstock.errors import UnreadableError
from penstock.sinks import Hit
from penstock.tests.waiting import DEADLINE

pytestmark = pytest.mark.usefixtures("own_folder")

JPEG = b"\xff\xd8\xff\xe0"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with two pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(JPEG)
    return folder


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ServiceConfig, list[Entry]]]:
    """Replaces the job by one that writes all it is given; the list has what each run was asked for."""
    runs: list[tuple[ServiceConfig, list[Entry]]] = []

    def run_job(config: ServiceConfig, source: Iterable[Entry], **how: Any) -> Report:
        entries = list(source)
        runs.append((config, entries))
        report = Report(Accounting(read=len(entries), delivered=len(entries)), [StageReport("source", "source")])
        how["watcher"].update(report)
        return report

    monkeypatch.setattr(images, "run_job", run_job)
    return runs


# -- help ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["embed", "search", "doctor"])
def test_each_command_teaches_itself_by_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Real commands, one a line, each beginning with the command's own name."""
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.count(f"penstock {command} ") >= 3
    assert "Exit status" in text or command == "search"


def test_the_examples_of_the_help_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option an example uses exists."""
    main(["embed", "--help"])
    text = capsys.readouterr().out
    examples = [line.partition("penstock embed")[2].split() for line in text.splitlines()]
    used = {word for example in examples for word in example if word.startswith("--")}
    assert used
    assert used <= {option for parameter in cli.commands["embed"].params for option in parameter.opts}


def test_every_setting_is_in_the_help_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of options is that of the configuration's fields."""
    main(["embed", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for field in FIELDS:
        assert all(f"{option} " in text for option in option_name(field).split("|"))
    assert "[default: 32]" in text
    assert "[default: COSINE]" in text


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """One number in one place."""
    assert main(["--version"]) == 0
    assert penstock.__version__ in capsys.readouterr().out


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """With the examples, and the status of wrong usage."""
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "penstock embed ~/Pictures --to photos.db" in captured.out + captured.err


def test_the_help_imports_nothing_heavy() -> None:
    """Help must come at once."""
    code = (
        "import sys; from penstock.engine.cli import main; main(['--help']); "
        "heavy = {'jax', 'pymilvus', 'matplotlib', 'onnxruntime', 'torch', 'PIL'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_the_module_can_be_run(pictures: Path) -> None:
    """``python -m penstock`` is the command, where none is installed."""
    line = [sys.executable, "-m", "penstock", "embed", str(pictures)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert "--to is missing" in done.stderr


# -- wrong usage ---------------------------------------------------------------------------------------------

WRONG: list[tuple[str, str]] = [
    ("embed", "--to is missing"),
    ("embed --to a.db", "no source"),
    ("embed pictures", "--to is missing"),
    ("embed nowhere --to a.db", "nowhere"),
    ("embed *.nothing --to a.db", "matches nothing"),
    ("embed @nowhere.txt --to a.db", "nowhere.txt"),
    ("embed @pictures --to a.db", "leave out the @"),
    ("embed - - --to a.db", "standard input"),
    ("embed pictures --to a.db --wrokers 2", "--workers"),
    ("embed pictures --to a.db --workers 0", "--workers"),
    ("embed pictures --to a.db --workers x", "--workers"),
    ("embed pictures --to a.db --progress loud", "--progress"),
    ("embed pictures --to a.db --max-failures 200%", "--max-failures"),
    ("embed pictures --to a.db --report r.pdf", ".json or .html"),
    ("embed pictures --to a.db --report nowhere/r.json", "folder must exist"),
    ("embed pictures --to a.db --config nowhere.yaml", "nowhere.yaml"),
    ("embed pictures --to a.db --config wrong.yaml", "wrong.yaml, line 1: bach_size"),
    ("embed pictures --to a.db --embedder gits", "gist"),
    ("embed pictures --to a.db --embedder onnx:nowhere.onnx", "nowhere.onnx"),
    ("embed pictures --to a.db --preset clap", "clip"),
    ("embed pictures --to ftp://x", "there is no 'ftp'"),
    ("search", "URI"),
    ("search a.db", "IMAGE"),
    ("search a.db nowhere.jpg", "nowhere.jpg"),
    ("search a.db pictures/a.jpg", "no store"),
    ("search pictures pictures/a.jpg -k 0", "-k"),
    ("search pictures pictures", "is a folder"),
    ("search pictures /dev/null", "no regular file"),
    ("search pictures pictures/a.jpg/b.jpg", "cannot be read: Not a directory"),
    (f"search pictures {'a' * 300}.jpg", "cannot be read: File name too long"),
    (f"search {'a' * 300}.db pictures/a.jpg", "URI: 'aaa"),
    ("search pictures pictures/a.jpg --html -", "--html: the page is a file"),
    ("search pictures pictures/a.jpg --html nowhere/m.html", "--html"),
    ("doctor --what", "--what"),
    ("embde", "embed"),
]


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(("line", "named"), WRONG)
def test_wrong_usage_ends_with_2_and_names_the_knob(line: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A message to standard error, no traceback, nothing on standard output, nothing left behind."""
    Path("wrong.yaml").write_text("bach_size: 1\n")
    before = sorted(os.listdir())  # noqa: PTH208
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(os.listdir()) == before  # noqa: PTH208


# -- embed ---------------------------------------------------------------------------------------------------


def test_embed_runs_the_job_with_what_was_asked_for(
    job: list[tuple[ServiceConfig, list[Entry]]], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options become fields, sources become entries; report and next step go to standard output, progress does not."""
    status = main(
        ["embed", str(pictures), "--to", "a.db", "--batch-size", "8", "--max-failures", "5%", "--progress", "plain"]
    )
    assert status == 0
    ((config, entries),) = job
    assert (config.to, config.batch_size, str(config.max_failures)) == ("a.db", 8, "1/20")
    assert [Path(entry.key).name for entry in entries] == ["a.jpg", "b.jpg"]
    captured = capsys.readouterr()
    assert "read 2 = written 2 + filtered 0 + dead 0 + in flight 0" in captured.out
    assert "penstock search a.db IMAGE" in captured.out
    assert " s] 2" in captured.err  # and how many of how many, if they have been counted by then


@pytest.mark.parametrize(
    ("given", "shown"), [([], True), (["--preset", "clip"], False), (["--progress", "json"], False)]
)
def test_a_model_without_a_preset_is_told_its_pixels(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, capsys: pytest.CaptureFixture[str], given: list[str], shown: bool
) -> None:
    """Pixels that are normalized for another model make vectors that look right and are not."""

    def run_job(config: ServiceConfig, source: Iterable[Entry], **how: Any) -> Report:
        how["begins"](estimate_memory(make_plan(config), config), 2)
        return Report(Accounting(read=2, delivered=2))

    monkeypatch.setattr(images, "run_job", run_job)
    line = ["embed", str(pictures), "--to", "a.db", "--embedder", "python:penstock.tests.hub_witness:flat", *given]
    assert main(line) == 0
    words = "pixels: 224 x 224, normalized as for imagenet; --preset clip, siglip or dinov2"
    assert (words in capsys.readouterr().err) is shown


def test_json_progress_leaves_one_object_on_standard_output(
    job: list[tuple[ServiceConfig, list[Entry]]], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And objects on standard error, so both can be read by machines."""
    assert main(["embed", str(pictures), "--to", "a.db", "--progress", "json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["accounting"]["written"] == 2
    assert json.loads(captured.out)["event"] == "report"
    assert {json.loads(line)["event"] for line in captured.err.splitlines()} == {"progress"}
    assert len(job) == 1


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "$(id)", "\u202egpj"])
def test_hostile_names_are_escaped_in_messages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name must not forge a line or paint the terminal, also when it is the user who gives it."""
    assert main(["embed", name + "-nowhere", "--to", "a.db"]) == 2
    message = capsys.readouterr().err
    assert not {"\x1b", "\u202e"} & set(message)
    assert "a\nb" not in message


def test_a_source_that_looks_like_an_option_can_be_given(
    job: list[tuple[ServiceConfig, list[Entry]]], pictures: Path
) -> None:
    """After two dashes, as everywhere."""
    (pictures / "-x.jpg").write_bytes(JPEG)
    os.chdir(pictures)
    assert main(["embed", "--to", "a.db", "--progress", "none", "--", "-x.jpg"]) == 0
    assert [Path(entry.key).name for entry in job[0][1]] == ["-x.jpg"]


def test_standard_input_is_a_list_of_paths(
    job: list[tuple[ServiceConfig, list[Entry]]], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by NUL on request."""
    (pictures / "a\nb.jpg").write_bytes(JPEG)
    with open(pictures / "list", "wb") as file:
        file.write(os.fsencode(pictures / "a\nb.jpg") + b"\0")
    with open(pictures / "list") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["embed", "-", "-0", "--to", "a.db", "--progress", "none"]) == 0
    assert [Path(entry.key).name for entry in job[0][1]] == ["a\nb.jpg"]


# -- search --------------------------------------------------------------------------------------------------


def test_search_prints_scores_and_paths_and_writes_the_sheet(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nearest first; names are escaped; the URI's secret is nowhere."""
    asked: list[tuple[ServiceConfig, Any, int]] = []

    def search_images(config: ServiceConfig, image: Any, k: int = 10) -> list[Hit]:
        asked.append((config, image, k))
        return [Hit("1", 0.98765, str(pictures / "a.jpg"), 4, 3, {}), Hit("\x1b[31m", 0.5, None, None, None, {})]

    monkeypatch.setattr(search, "search_images", search_images)
    uri = "http://root:sEcReT@host:19530"
    assert main(["search", uri, str(pictures / "a.jpg"), "-k", "2", "--html", "m.html", "--collection", "c"]) == 0
    config, image, k = asked[0]
    assert (config.to, config.collection, image, k) == (uri, "c", str(pictures / "a.jpg"), 2)
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [f"1    0.9877  {pictures}/a.jpg", "2    0.5000  \\x1b[31m"]
    assert "contact sheet: m.html" in out
    assert "sEcReT" not in out + Path("m.html").read_text()


def test_a_query_that_is_no_picture_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the argument that is wrong, and it is named."""

    def search_images(*args: Any, **how: Any) -> list[Hit]:
        raise UnreadableError("looks like HTML")

    monkeypatch.setattr(search, "search_images", search_images)
    assert main(["search", str(pictures), str(pictures / "a.jpg")]) == 2
    assert "IMAGE: looks like HTML" in capsys.readouterr().err


def test_an_empty_collection_is_said(
    monkeypatch: pytest.MonkeyPatch, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing on standard output would look like a fault."""

    def search_images(*args: Any, **how: Any) -> list[Hit]:
        return []

    monkeypatch.setattr(search, "search_images", search_images)
    assert main(["search", str(pictures), str(pictures / "a.jpg")]) == 0
    assert "holds no pictures" in capsys.readouterr().err
