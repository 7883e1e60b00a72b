"""The help teaches: options in groups, by people's order; the ways to start the command and to see where it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.engine.cli.commands import cli, main
from penstock.engine.cli.help import GROUPS
from penstock.engine.cli.options import FIELDS, option_name


def sections(text: str) -> dict[str, str]:
    """Title -> what stands below it; titles stand at the left edge and end with a colon."""
    found: dict[str, str] = {}
    title = ""
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line[:-1]
        found[title] = found.get(title, "") + line + "\n"
    return found


def test_every_setting_is_in_one_group() -> None:
    """A field that is new is put where people look for it."""
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert not set(FIELDS) - set(grouped)


@pytest.mark.parametrize("command", ["embed", "search", "resume", "retry", "import"])
def test_options_are_listed_in_groups(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each once, in the order of the groups; only what is about the command itself is under the last title."""
    assert main([command, "--help"]) == 0
    found = sections(capsys.readouterr().out.partition("Examples:")[0])
    titles = [title for title in found if title in GROUPS]
    assert titles == [title for title in GROUPS if title in titles]
    options = {parameter.opts[0] for parameter in cli.commands[command].params if parameter.param_type_name == "option"}
    listed = [
        line.split()[0].rstrip(",") for title in titles for line in found[title].splitlines() if line[:3] == "  -"
    ]
    assert options <= set(listed)
    assert all(listed.count(option) == 1 for option in options)
    assert "  --workers" not in found["More"]


def test_the_groups_of_embed_hold_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the first day."""
    main(["embed", "--help"])
    found = sections(capsys.readouterr().out)
    for title, option in [
        ("Source", "--metadata"),
        ("Model and pixels", "--embedder"),
        ("Store", "--to"),
        ("Store", "--overwrite"),
        ("A job that goes on where it was", "--job"),
        ("Speed and memory", "--workers"),
        ("Failures", "--max-failures"),
        ("Output", "--report"),
    ]:
        assert f"  {option} " in found[title], option
    assert "bulk:DIR" in found["Store"]
    assert "a folder" in found["Store"]


def test_the_help_of_resume_tells_no_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not given there is as in the last run."""
    main(["resume", "--help"])
    text = capsys.readouterr().out
    assert "[default" not in text
    assert f"{option_name('workers')} " in text
    assert text.count("penstock resume ") >= 3


def test_commands_are_listed_in_the_order_of_their_use(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing anybody does comes first."""
    main(["--help"])
    listed = capsys.readouterr().out.partition("Commands:")[2].partition("Examples:")[0].splitlines()
    names = [line.split()[0] for line in listed if line.strip()]
    wanted = [
        "embed",
        "search",
        "status",
        "resume",
        "retry",
        "videos",
        "dedup",
        "volumes",
        "import",
        "clean",
        "serve-demo",
        "doctor",
    ]
    assert names == wanted


@pytest.mark.parametrize("place", [0, 1, 2])
def test_tracebacks_can_be_asked_for_anywhere(
    place: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also at the end of a line that has just failed."""

    def buggy(triton: str | None) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("penstock.engine.doctor.examine.examine", buggy)
    line = ["doctor", "--json"]
    assert main([*line[:place], "--debug", *line[place:]]) == 1
    assert "in buggy" in capsys.readouterr().err


def test_a_source_called_like_it_is_still_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After two dashes."""
    monkeypatch.chdir(tmp_path)
    assert main(["embed", "--to", "a.db", "--", "--debug"]) == 2
    assert "'--debug': there is no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_package_can_be_run(tmp_path: Path) -> None:
    """``python -m penstock`` is the command, where its script is not on the path."""
    done = subprocess.run([sys.executable, "-m", "penstock", "embed", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--to is missing" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_completion_is_there(shell: str) -> None:
    """For the three shells of the documentation."""
    command = [
        sys.executable,
        "-c",
        "import sys; from penstock.engine.cli.commands import cli; cli.main(prog_name='penstock')",
    ]
    environment = {**os.environ, "_PENSTOCK_COMPLETE": f"{shell}_source"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "_PENSTOCK_COMPLETE" in done.stdout
