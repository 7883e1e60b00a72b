"""A setting that is refused later than by its type: it is called as it was spelled, wherever the refusal comes from."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.engine.cli import main
from penstock.engine.cli.options import option_name
from penstock.engine.config.messages import spelled
from penstock.engine.config.model import ServiceConfig
from penstock.errors import ConfigError, PipelineFailure, SourceError
from penstock.tests.whole_jobs import draw_folder

LATER: list[tuple[str, Any, str]] = [
    ("to", "ftp://x", "there is no 'ftp', there are bulk, http, https, "),
    ("to", "nowhere/a.db", "does not exist"),
    ("index", "HNSWW", "there is no type"),
    ("index_params", "M=1", "M"),
    ("report", "r.pdf", "must end in .json or .html"),
    ("metadata", "nowhere.csv", "there is no file"),
    ("fields", "1x:int64", "is no name of a column"),
    ("fields", "year:intt", "'year': 'intt' is no type"),
    ("memory", "1MiB", "is too little"),
    ("update", True, "about the books of a job"),
]
"""Fields, values that fit their types, and what is said of them."""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    draw_folder(tmp_path / "pictures", 1)


def settings_of(field: str, value: Any) -> dict[str, Any]:
    return {"to": "a.db", "progress": "none", **({"index": "HNSW"} if field == "index_params" else {}), field: value}


@pytest.mark.parametrize(("field", "value", "words"), LATER)
def test_in_python_by_its_argument(field: str, value: Any, words: str) -> None:
    """Not by what a lower floor calls it."""
    with pytest.raises(ConfigError, match=rf"^{field}: .*{words}"):
        penstock.embed_images("pictures", **settings_of(field, value))


@pytest.mark.parametrize(("field", "value", "words"), LATER)
def test_in_a_file_by_its_line(field: str, value: Any, words: str) -> None:
    """However long after it was read."""
    said = {name: each for name, each in settings_of(field, value).items() if name != field}
    lines = [f"{name}: {json.dumps(each)}" for name, each in [*said.items(), (field, value)]]
    Path("job.yaml").write_text("\n".join(lines))
    config = ServiceConfig.from_yaml("job.yaml")
    with pytest.raises(ConfigError, match=rf"^job\.yaml, line {len(lines)}: {field}: .*{words}"):
        penstock.embed_images("pictures", config=config)


@pytest.mark.parametrize(("field", "value", "words"), LATER)
def test_on_the_command_line_by_its_option(
    field: str, value: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the help."""
    options = {option_name(name): each for name, each in settings_of(field, value).items()}
    given = [part for name, each in options.items() for part in ([name] if each is True else [name, str(each)])]
    assert main(["embed", "pictures", *given]) == 2
    said = capsys.readouterr().err
    assert f"penstock: {option_name(field)}: " in said
    assert words in said


def test_an_option_that_overrides_the_file_is_blamed_and_not_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the refusal comes later."""
    Path("job.yaml").write_text("to: a.db\nindex: FLAT\n")
    assert main(["embed", "pictures", "--config", "job.yaml", "--index", "HNSWW"]) == 2
    assert "penstock: --index: there is no type" in capsys.readouterr().err


def test_an_argument_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A search has no --to."""
    for uri, why in (("ftp://x", ": there is no 'ftp'"), ("pictures", " is not a Milvus address")):
        assert main(["search", uri, "pictures/0000.png"]) == 2
        assert f"penstock: URI: '{uri}'{why}" in capsys.readouterr().err


def test_what_an_option_was_given_is_shown_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Also that of an option that may be given more than once."""
    assert main(["embed", "pictures", "--to", "a.db", "--on-failure", "embed=fail", "--on-failure", "x"]) == 2
    assert "penstock: --on-failure: 'embed=fail', 'x' is not allowed" in capsys.readouterr().err
    assert main(["embed", "pictures", "--to", "a.db", "--field", "year"]) == 2
    assert "penstock: --field: 'year' is not allowed" in capsys.readouterr().err


def test_a_metric_may_be_written_in_small_letters(capsys: pytest.CaptureFixture[str]) -> None:
    """On a command line any choice may."""
    assert ServiceConfig(metric="l2").metric == "L2"
    assert main(["embed", "pictures", "--to", "ftp://x", "--metric", "cosine", "--dtype", "Float16"]) == 2
    assert "penstock: --to: 'ftp://x': there is no 'ftp'" in capsys.readouterr().err


def test_all_errors_of_a_failed_job_are_respelled() -> None:
    """Those of a source, and those inside of a failure, line by line; others stay as they are."""
    leaves = [ConfigError("uri: x\nsize: y"), SourceError("metadata: z"), OSError("index: o"), ConfigError("no")]
    with pytest.raises(PipelineFailure) as caught, spelled({"to": "--to", "metadata": "job.yaml, line 1: metadata"}):
        raise PipelineFailure("stopped", leaves)
    said = [str(leaf) for leaf in caught.value.exceptions]
    assert said == ["--to: x\nimage_size: y", "job.yaml, line 1: metadata: z", "index: o", "no"]


def test_how_a_value_was_said_does_not_change_it() -> None:
    """A configuration of a file equals the same one in Python, and travels to other processes with its spelling."""
    Path("job.yaml").write_text("to: ftp://x\n")
    config = ServiceConfig.from_yaml("job.yaml")
    assert config == ServiceConfig(to="ftp://x")
    for same in (pickle.loads(pickle.dumps(config)), config.model_copy(update={"slots": 2})):
        with pytest.raises(ConfigError, match=r"^job\.yaml, line 1: to: no"), same.spelled():
            raise ConfigError("uri: no")
