"""Spec strings: which embedder they make, and what wrong ones are told."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.embedders import SCHEMES, Embedder, PixelPreferences, Pixels, Refusals, Runs, View, parse_embedder
from penstock.errors import ConfigError


@pytest.mark.parametrize(
    ("spec", "kind", "runs", "name"),
    [
        ("gist", "Gist", "worker", "gist"),
        ("gist:96", "Gist", "worker", "gist"),
        ("onnx:models/clip.onnx", "OnnxEmbedder", "thread", "onnx:clip.onnx"),
        ("python:my.models:embed", "PythonEmbedder", "thread", "python:my.models:embed"),
        ("jax:my.models:embed", "JaxEmbedder", "worker", "jax:my.models:embed"),
    ],
)
def test_a_spec_makes_its_embedder(spec: str, kind: str, runs: str, name: str) -> None:
    """Each scheme makes its kind, which says where it runs and what it is called."""
    embedder = parse_embedder(spec)
    assert (type(embedder).__name__, embedder.runs, embedder.name, embedder.spec) == (kind, runs, name, spec)


def test_options_may_stand_in_the_spec_or_beside_it() -> None:
    """Both forms make the same embedder, and keywords win."""
    inside = parse_embedder("onnx:m.onnx?output=v&threads=2")
    beside = parse_embedder("onnx:m.onnx?threads=9", threads=2, output="v")
    assert inside.spec == beside.spec == "onnx:m.onnx?output=v&threads=2"


def test_option_values_survive_the_spec_string() -> None:
    """A value with reserved characters makes the same embedder in the worker."""
    made = parse_embedder("onnx:m.onnx", output="a&b=c?d+e %41/f:0")
    assert parse_embedder(made.spec).spec == made.spec
    assert parse_embedder("python:a:b", version="1&x").spec == parse_embedder("python:a:b?version=1%26x").spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gits", r"there is no 'gits', there are gist, jax, onnx, python.*did you mean 'gist'"),
        ("", "there is no ''"),
        ("clip.onnx", "there is no"),
        ("gist:64?fast=1", "no option 'fast'"),
        ("python:a:b?verison=1", "no option 'verison': it has version"),
        ("onnx:m.onnx?threads", "name=value"),
        ("onnx:m.onnx?threads=" + "9" * 5000, "positive integer"),
    ],
)
def test_wrong_specs_are_answered_with_what_there_is(spec: str, message: str) -> None:
    """An unknown scheme or option names the known ones."""
    with pytest.raises(ConfigError, match=message):
        parse_embedder(spec)


@given(st.text(max_size=40) | st.tuples(st.sampled_from(sorted(SCHEMES)), st.text(max_size=30)).map(":".join))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_spec_or_a_setting_error(text: str) -> None:
    """Nothing but ConfigError comes out of parsing, and what parses makes itself again."""
    try:
        embedder = parse_embedder(text)
    except ConfigError:
        return
    assert parse_embedder(embedder.spec).spec == embedder.spec


class _Constant(Embedder):
    """The smallest embedder there is; a plug-in in one entry of the registry."""

    runs: ClassVar[Runs] = "green"

    @property
    def dimension(self) -> int:
        return 2

    @property
    def fingerprint(self) -> str:
        return "constant"

    def open(self, spec: Pixels, rows: int) -> None:
        pass

    def embed(self, view: View, rows: int) -> Refusals:
        view.embeddings[:rows] = np.array([1, 0], np.float32)
        return {}


def test_another_kind_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory under a scheme with a plus gets the rest of the spec and its options untouched."""
    seen: list[object] = []

    def make(rest: str, options: dict[str, str]) -> Embedder:
        seen.extend((rest, options))
        return _Constant("constant", "x")

    monkeypatch.setitem(SCHEMES, "triton+http", make)
    embedder = parse_embedder("triton+http://host:8000/clip?timeout=3", retries=2)
    assert seen == ["//host:8000/clip", {"timeout": "3", "retries": "2"}]
    assert (embedder.runs, embedder.wants) == ("green", PixelPreferences())
