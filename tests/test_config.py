"""One configuration model in three spellings: checked values, names, profiles, precedence, secrets."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.cli.commands import cli
from penstock.engine.cli.options import FIELDS, configured, option_name
from penstock.engine.config.model import ServiceConfig
from penstock.engine.config.profiles import PROFILES
from penstock.engine.config.settings import AsyncPipelineConfig
from penstock.engine.config.types import PresetName
from penstock.errors import ConfigError
from penstock.preprocess.presets import PRESETS as PRESETS_THERE_ARE


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


def yaml_file(folder: Path, text: str) -> str:
    path = folder / "job.yaml"
    path.write_text(text)
    return str(path)


def test_the_defaults_are_a_complete_configuration() -> None:
    """Nothing must be given but the store, and that only when a job starts."""
    config = ServiceConfig()
    assert (config.to, config.embedder, config.batch_size, config.max_failures) == (None, "gist", 32, -1)
    assert config.async_pipeline.model_dump() == {
        "preprocess_workers": 2,
        "embedding_workers": 1,
        "insert_batch_size": 100,
        "queue_maxsize": 100,
    }


def test_every_field_is_described_and_is_an_option() -> None:
    """The help texts and the options come from the fields: one table."""
    assert all(info.description for info in ServiceConfig.model_fields.values())
    options = {option for parameter in cli.commands["embed"].params for option in parameter.opts}
    assert {option for field in FIELDS for option in option_name(field).split("|")} <= options
    assert set(ServiceConfig.model_fields) - set(FIELDS) == {"async_pipeline"}


WRONG: list[tuple[str, Any, str]] = [
    ("workers", 0, "greater than or equal to 1"),
    ("workers", "many", "valid integer"),
    ("batch_size", 0, "greater than or equal to 1"),
    ("image_size", 8, "greater than or equal to 16"),
    ("dtype", "float64", "'float32', 'float16' or 'uint8'"),
    ("progress", "loud", "'auto', 'plain', 'json' or 'none'"),
    ("profile", "fast", "'default', 'high_throughput' or 'low_memory'"),
    ("max_failures", "200%", "rate above 0 up to 100%"),
    ("max_failures", "-2", "count"),
    ("on_failure", "embed=again", "must be skip, skip:BUDGET, fail"),
    ("devices", "a", "valid integer"),
    ("background", "red", "R,G,B, each 0..255"),
    ("background", "1,2", "R,G,B, each 0..255"),
    ("background", "1,2,300", "R,G,B, each 0..255"),
    ("preset", "clipp", "'imagenet', 'clip', 'siglip' or 'dinov2'"),
    ("embedder", "gits", r"there are gist, jax, onnx, .*; did you mean 'gist'\?"),
    ("embedder", "clip", "clip is a preset, .* the model itself is said as onnx:FILE.onnx"),
    ("collection", "", "not allowed: must have at least 1 character"),
    ("mode", "replace", "'append' or 'overwrite'"),
    ("fields", "year", "NAME:TYPE"),
    ("index_params", "M", "NAME=VALUE"),
    ("wait_index", -1, "greater than or equal to 0"),
    ("partition", "", "at least 1 character"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), WRONG)
def test_a_wrong_value_is_refused_in_all_three_spellings(tmp_path: Path, field: str, value: Any, allowed: str) -> None:
    """The message names the field as it was spelled, and what is allowed."""
    with pytest.raises(ConfigError, match=rf"^{field}: .*{allowed}"):
        ServiceConfig(**{field: value})
    with pytest.raises(ConfigError, match=rf"job\.yaml, line 2: {field}: .*{allowed}"):
        ServiceConfig.from_yaml(yaml_file(tmp_path, f"# a comment\n{field}: {value!r}\n"))
    with pytest.raises(ConfigError, match=rf"^{option_name(field)}: .*{allowed}"):
        configured(None, {field: str(value)})


def test_a_wrong_name_is_refused_in_all_three_spellings(tmp_path: Path) -> None:
    """By name, with the one that was probably meant."""
    with pytest.raises(ConfigError, match=r"^bach_size: no such setting; did you mean batch_size\?"):
        ServiceConfig(bach_size=1)
    with pytest.raises(ConfigError, match=r"job\.yaml, line 3: batch-size: no such setting; did you mean batch_size\?"):
        ServiceConfig.from_yaml(yaml_file(tmp_path, "to: a.db\n\nbatch-size: 1\n"))
    result = CliRunner().invoke(cli, ["embed", "--bach-size", "1"])
    assert result.exit_code == 2
    assert "--batch-size" in result.output


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("overwrite", "mode: overwrite"),
        ("append", "mode: append"),
        ("max-failures", "max_failures"),
        ("field", "fields"),
    ],
)
def test_an_option_that_is_spelled_otherwise_in_a_file_is_named(tmp_path: Path, key: str, meant: str) -> None:
    """The keys of a file are the fields' names: the message says which."""
    with pytest.raises(ConfigError, match=rf"job\.yaml, line 1: {key}: no such setting; did you mean {meant}\?"):
        ServiceConfig.from_yaml(yaml_file(tmp_path, f"{key}: true\n"))


def test_the_presets_of_the_configuration_are_those_there_are() -> None:
    """They are listed twice, because the help imports nothing heavy."""
    assert set(get_args(PresetName)) == set(PRESETS_THERE_ARE)


def test_a_colour_is_three_numbers_in_any_spelling() -> None:
    """Of text, a list, or numbers that are none."""
    for said in ("1, 2,3", [1, 2, 3], (1, 2, 3), ["1", "2", "3"]):
        assert ServiceConfig(background=said).background == (1, 2, 3)  # pyright: ignore[reportArgumentType]
    for wrong in ((1, 2, True), (1, 2, 3.0), "1,2,3,4", 5, "1,2,-3", "1,2,0x3"):
        with pytest.raises(ConfigError, match="R,G,B"):
            ServiceConfig(background=wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("said", "meant"),
    [("r.json", ["r.json"]), (Path("r.json"), ["r.json"]), (["a.json", "b.html", "a.json"], ["a.json", "b.html"])],
)
def test_reports_may_be_several(tmp_path: Path, said: Any, meant: list[str]) -> None:
    """One path is enough to say where there is one; each is written once."""
    assert ServiceConfig(report=said).report == tuple(map(Path, meant))
    assert ServiceConfig(report=None).report == ()  # pyright: ignore[reportArgumentType]
    assert ServiceConfig.from_yaml(yaml_file(tmp_path, f"report: {json.dumps(said, default=str)}\n")).report == tuple(
        map(Path, meant)
    )


def test_a_wrong_name_in_a_section_is_refused(tmp_path: Path) -> None:
    """With the section and the line."""
    with pytest.raises(ConfigError, match=r"^async_pipeline\.queue_size: no such setting; did you mean queue_maxsize"):
        ServiceConfig(async_pipeline={"queue_size": 1})
    with pytest.raises(ConfigError, match=r"line 2: async_pipeline\.queue_maxsize: 0 is not allowed"):
        ServiceConfig.from_yaml(yaml_file(tmp_path, "async_pipeline:\n  queue_maxsize: 0\n"))


def test_every_wrong_setting_is_named_at_once() -> None:
    """Nobody wants to hear of them one at a time."""
    with pytest.raises(ConfigError) as caught:
        ServiceConfig(workers=0, batch_size=0, nonsense=1)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["workers", "batch_size", "nonsense"]


def test_assignment_is_checked() -> None:
    """Also in the section, and also for names that are no field."""
    config = ServiceConfig()
    config.async_pipeline.preprocess_workers = 4
    config.batch_size = 64
    assert (config.async_pipeline.preprocess_workers, config.batch_size) == (4, 64)
    with pytest.raises(ConfigError, match=r"^preprocess_workers: 0"):
        config.async_pipeline.preprocess_workers = 0
    with pytest.raises(ConfigError, match=r"^batch_size: 'x'"):
        config.batch_size = "x"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match=r"^bach_size: no such setting; did you mean batch_size"):
        config.bach_size = 1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match=r"^profile: .*make a new ServiceConfig"):
        config.profile = "low_memory"
    assert config.batch_size == 64


def test_configurations_share_nothing() -> None:
    """What is changed in one is not changed in another."""
    ServiceConfig().async_pipeline.preprocess_workers = 7
    assert ServiceConfig().async_pipeline.preprocess_workers == 2


def test_the_section_can_be_made_directly() -> None:
    """It is a configuration of its own, checked in the same way."""
    config = ServiceConfig(async_pipeline=AsyncPipelineConfig(queue_maxsize=7))
    assert config.async_pipeline.queue_maxsize == 7
    with pytest.raises(ConfigError, match=r"^queue_maxsize"):
        AsyncPipelineConfig(queue_maxsize=0)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [("default", (2, 1, 100, 100)), ("high_throughput", (4, 1, 200, 150)), ("low_memory", (2, 1, 50, 50))],
)
def test_profiles_have_the_documented_values(profile: Any, expected: tuple[int, ...]) -> None:
    """Those of source document 1."""
    assert tuple(ServiceConfig(profile=profile).async_pipeline.model_dump().values()) == expected


def test_profiles_hold_only_fields() -> None:
    """A misspelled field in a profile would make every configuration of it fail."""
    for profile in PROFILES:
        ServiceConfig(profile=profile)


def test_the_command_line_wins_over_the_file_over_the_profile(tmp_path: Path) -> None:
    """Field by field, also in sections."""
    file = yaml_file(tmp_path, "profile: low_memory\nslots: 5\nworkers: 3\nasync_pipeline:\n  queue_maxsize: 9\n")
    config = configured(file, {"workers": "1", "slots": None})
    assert (config.workers, config.slots, config.batch_size) == (1, 5, 16)
    assert (config.async_pipeline.queue_maxsize, config.async_pipeline.insert_batch_size) == (9, 50)


def test_an_option_that_overrides_the_file_is_the_one_that_is_blamed(tmp_path: Path) -> None:
    """The file's value is right: its line must not be named."""
    with pytest.raises(ConfigError, match=r"^--workers: "):
        configured(yaml_file(tmp_path, "workers: 3\n"), {"workers": "0"})


@pytest.mark.parametrize(
    ("given_value", "meaning"),
    [
        (None, -1),
        (-1, -1),
        (0, 0),
        ("10", 10),
        ("1", 1),
        ("5%", Fraction(1, 20)),
        (0.05, Fraction(1, 20)),
        ("0.05", Fraction(1, 20)),
        ("1/20", Fraction(1, 20)),
        (Fraction(1, 20), Fraction(1, 20)),
        (1.0, Fraction(1)),
        ("100%", Fraction(1)),
    ],
)
def test_failure_budgets_are_counts_or_rates(given_value: Any, meaning: int | Fraction) -> None:
    """In every spelling; a whole number is a count, whatever its type in the file."""
    budget = ServiceConfig(max_failures=given_value).max_failures
    assert (budget, type(budget)) == (meaning, type(meaning))


@given(st.one_of(st.text(max_size=8), st.floats(), st.integers(), st.booleans(), st.binary(max_size=4)))
@settings(max_examples=200, deadline=None)
def test_any_budget_is_taken_or_refused(value: Any) -> None:
    """Never another exception, never a value out of range."""
    try:
        budget = ServiceConfig(max_failures=value).max_failures
    except ConfigError:
        return
    assert budget >= -1 if isinstance(budget, int) else 0 < budget <= 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("to: !!python/object/apply:os.getcwd []\n", "line 1: not a YAML file of plain settings"),
        ("a: [1\n", "not a YAML file of plain settings"),
        ("- to\n", "must be a mapping"),
        ("just text\n", "must be a mapping"),
        ("slots: 1\nslots: 2\n", "line 2: slots is given twice"),
        ("5: 1\n", "line 1: 5: no such setting"),
        ("profile: [1]\n", "line 1: profile: "),
        ("to: \x07\n", "characters"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """Nothing in a file can run code, and nothing in it is passed over."""
    with pytest.raises(ConfigError, match=reason):
        ServiceConfig.from_yaml(yaml_file(tmp_path, text))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(ConfigError, match=r"nothing\.yaml: the configuration cannot be read"):
        ServiceConfig.from_yaml(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        ServiceConfig.from_yaml(tmp_path / "binary.yaml")


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    """A file in which all is commented out is a usual start."""
    assert ServiceConfig.from_yaml(yaml_file(tmp_path, "# to: x\n")) == ServiceConfig()


def test_the_token_comes_from_the_environment_and_is_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not in repr, not in dumps, not in errors, not in help, whatever way it came in."""
    monkeypatch.setenv("MILVUS_TOKEN", "sEcReT")
    config = ServiceConfig(to="http://root:sEcReT@host:19530")
    assert config.token is not None
    assert config.token.get_secret_value() == "sEcReT"
    shown = [repr(config), str(config), str(config.model_dump(mode="json", exclude={"to"})), config.shown_to]
    shown.append(CliRunner().invoke(cli, ["embed", "--help"]).output)
    for wrong in ({"token": ["sEcReT"]}, {"token": {"a": "sEcReT"}}):
        with pytest.raises(ConfigError) as caught:
            ServiceConfig(**wrong)
        shown.append(str(caught.value))
    with pytest.raises(ConfigError) as torn:
        ServiceConfig.from_yaml(yaml_file(tmp_path, 'token: "sEcReT\nto: x\n'))
    assert not any("sEcReT" in text for text in [*shown, str(torn.value)])
    assert "http://***@host:19530" in repr(config)


def test_a_configuration_goes_through_json() -> None:
    """A job writes down what it was asked for; rates keep their exact value."""
    config = ServiceConfig(to="a.db", max_failures="1/3", devices="0,2", background="0,0,0", profile="low_memory")
    plain = config.model_dump(mode="json", exclude={"token"})
    assert ServiceConfig(**plain) == config


@pytest.mark.parametrize("said", ["year:int64,album:varchar(9)", ("year:int64", "album: varchar(9)")])
def test_fields_are_declared_in_any_spelling(tmp_path: Path, said: Any) -> None:
    """One text, several options, or the mapping of a file."""
    wanted = {"year": "int64", "album": "varchar(9)"}
    assert ServiceConfig(fields=said).fields == wanted
    assert configured(None, {"fields": said}).fields == wanted
    assert ServiceConfig.from_yaml(yaml_file(tmp_path, "fields: {year: int64, album: varchar(9)}\n")).fields == wanted
    with pytest.raises(ConfigError, match="year is given twice"):
        ServiceConfig(fields=["year:int64", "year:bool"])


def test_index_parameters_are_numbers_where_they_look_like_it() -> None:
    """As the mapping of a file has them."""
    assert ServiceConfig(index_params="M=16,sq_type=SQ8").index_params == {"M": 16, "sq_type": "SQ8"}
    assert ServiceConfig(index_params={"M": 16}).index_params == {"M": 16}


def test_overwrite_and_append_exclude_one_another() -> None:
    """They are two words for one field: the file's is overruled, but not by both."""
    assert configured(None, {"mode_overwrite": True, "mode_append": False}).mode == "overwrite"
    assert configured(None, {"mode_overwrite": False, "mode_append": False}).mode == "append"
    result = CliRunner().invoke(cli, ["embed", "x", "--to", "a.db", "--overwrite", "--append"])
    assert result.exit_code == 2
    assert "--append and --overwrite exclude one another" in result.output
