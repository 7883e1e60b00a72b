"""Settings written in sections: another spelling of the same fields."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError, ServiceConfig
from penstock.engine.config.sections import SECTIONS

FLAT: dict[str, Any] = {
    "include": ["*.jpg"],
    "follow_links": True,
    "workers": 3,
    "batch_size": 64,
    "max_side": 4096,
    "embedder": "gist",
    "image_size": 64,
    "to": "photos.db",
    "collection": "holidays",
    "index_params": {"M": 16},
}
SECTIONED: dict[str, Any] = {
    "source": {"include": ["*.jpg"], "follow_links": True},
    "workers": {"count": 3, "batch_size": 64, "max_side": 4096},
    "embedder": {"spec": "gist", "image_size": 64},
    "sink": {"uri": "photos.db", "collection": "holidays", "index_params": {"M": 16}},
}
YAML = """\
source:
  include: ["*.jpg"]
  follow_links: true
workers: {count: 3, batch_size: 64, max_side: 4096}
embedder:
  spec: gist
  image_size: 64
sink:
  uri: photos.db
  collection: holidays
  index_params:
    M: 16
"""


@pytest.fixture
def yaml(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file of settings."""

    def written(text: str) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return path

    return written


def test_sections_are_the_fields_they_stand_for(yaml: Callable[[str], Path]) -> None:
    """In Python and in a file; both spellings may be mixed."""
    flat = ServiceConfig(**FLAT)
    assert ServiceConfig(**SECTIONED) == flat
    assert ServiceConfig.from_yaml(yaml(YAML)) == flat
    assert ServiceConfig(**{**SECTIONED, "workers": 3, "batch_size": 64, "max_side": 4096}) == flat


def test_every_name_of_a_section_is_a_field_of_one_section() -> None:
    """The table follows the model."""
    fields = [field for section in SECTIONS.values() for field in section.values()]
    assert set(fields) <= ServiceConfig.model_fields.keys()
    assert len(fields) == len(set(fields))


def test_several_sinks_are_a_list(yaml: Callable[[str], Path]) -> None:
    """Beside the section for one."""
    wanted = ServiceConfig(to=["photos.db", "bulk:parts"])
    assert ServiceConfig(sinks=["photos.db", "bulk:parts"]) == wanted
    assert ServiceConfig.from_yaml(yaml("sinks: [photos.db, 'bulk:parts']\n")) == wanted
    assert ServiceConfig(sink={"uri": ["photos.db", "bulk:parts"]}) == wanted
    with pytest.raises(ConfigError, match=r"sinks: is also given as sink\.uri"):
        ServiceConfig(sink={"uri": "photos.db"}, sinks=["photos.db"])


def test_what_is_given_beside_a_file_wins_over_its_sections(yaml: Callable[[str], Path]) -> None:
    """One field at a time, in either spelling."""
    path = yaml(YAML)
    for over in ({"workers": 8}, {"workers": {"count": 8}}):
        config = ServiceConfig.from_yaml(path, **over)
        assert (config.workers, config.batch_size) == (8, 64)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": {"count": 0}}, "workers.count: 0 is not allowed"),
        ({"workers": {"cuont": 2}}, "workers.cuont: no such setting; did you mean count?"),
        ({"workers": {"batch_size": 2}, "batch_size": 2}, "batch_size: is also given as workers.batch_size"),
        ({"batch_size": 2, "workers": {"batch_size": 2}}, "workers.batch_size: is also given as batch_size"),
        ({"source": "photos"}, "source: must be a section with some of"),
    ],
)
def test_a_refusal_names_section_and_name(given: dict[str, Any], said: str) -> None:
    """As they were written."""
    with pytest.raises(ConfigError) as caught:
        ServiceConfig(**given)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers:\n  batch_size: 64\n  count: 0\n", "job.yaml, line 3: workers.count: 0 is not allowed"),
        ("sink:\n  ur: x.db\n", "job.yaml, line 2: sink.ur: no such setting; did you mean uri?"),
        (
            "batch_size: 3\nworkers:\n  batch_size: 3\n",
            "line 3: workers.batch_size: is also given as batch_size",
        ),
    ],
)
def test_a_refusal_names_the_line_of_the_file(yaml: Callable[[str], Path], text: str, said: str) -> None:
    """The line of the name, not that of its section."""
    with pytest.raises(ConfigError, match=said):
        ServiceConfig.from_yaml(yaml(text))


def test_a_secret_in_a_section_is_not_shown() -> None:
    """Neither in a refusal nor in the configuration's text."""
    with pytest.raises(ConfigError) as caught:
        ServiceConfig(sink={"uri": "http://localhost:19530", "token": ["hunter2"]})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(ServiceConfig(sink={"token": "hunter2"}))
