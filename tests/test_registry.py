"""Factories by scheme: what is built in, and what installed packages bring by entry points."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from penstock.engine.config.model import ServiceConfig
from penstock.engine.doctor.checks import plugins
from penstock.engine.doctor.examine import registries
from penstock.engine.embedders import parse_embedder
from penstock.errors import ConfigError
from penstock.registry import Plugin, Registry, scheme_of, split_options
from penstock.sinks import SinkOptions, make_sink

Install = Callable[..., None]


def built_in(rest: str) -> str:
    return f"built in {rest}"


@pytest.fixture
def things() -> Registry[Callable[[str], str]]:
    return Registry("thing", "penstock.things", {"plain": built_in})


def test_a_package_is_imported_when_its_scheme_is_asked_for(
    install: Install, things: Registry[Callable[[str], str]]
) -> None:
    """Not for what is built in, not to be listed, not to be looked up."""
    install("acme_things", {"acme": "acme_things:make"}, "def make(rest): return f'acme {rest}'")
    assert things.factory("plain", "plain:x")("x") == "built in x"
    assert things.plugins() == [Plugin("acme", "acme_things 1.2", "ready")]
    assert things.schemes() == ["acme", "plain"]
    assert things.problem("acme") is None
    assert "acme_things" not in sys.modules
    assert things.factory("acme", "acme:x")("x") == "acme x"
    assert things.factory("acme", "acme:x") is things.factory("acme", "acme:y")


def test_an_unknown_scheme_is_answered_with_all_there_are(
    install: Install, things: Registry[Callable[[str], str]]
) -> None:
    """Also with those that were installed, and with the one that was probably meant."""
    install("acme_things", {"acme": "acme_things:make"}, "")
    message = r"^thing: 'acne:x': there is no 'acne', there are acme, plain; did you mean 'acme'\?$"
    with pytest.raises(ConfigError, match=message):
        things.factory("acne", "acne:x")


@pytest.mark.parametrize(
    ("module", "value", "message"),
    [
        ("import no_such_module", "acme_things:make", "cannot be imported .*ModuleNotFoundError.*no_such_module"),
        ("raise KeyError('x')", "acme_things:make", "cannot be imported .*KeyError"),
        ("raise SystemExit(3)", "acme_things:make", "cannot be imported .*SystemExit: 3"),
        ("", "acme_things:make", "cannot be imported .*AttributeError.*make"),
        ("make = 3", "acme_things:make", "is no factory: acme_things:make is a int"),
    ],
)
def test_a_broken_package_is_a_setting_error_that_names_it(
    install: Install, things: Registry[Callable[[str], str]], module: str, value: str, message: str
) -> None:
    install("acme_things", {"acme": value}, module)
    with pytest.raises(ConfigError, match=rf"^thing: 'acme:x': the plugin 'acme' of acme_things 1\.2 {message}"):
        things.factory("acme", "acme:x")


def test_what_is_built_in_cannot_be_taken_over(install: Install, things: Registry[Callable[[str], str]]) -> None:
    """The package is listed as one of no use, and never imported."""
    install("acme_things", {"plain": "acme_things:make"}, "raise KeyError")
    assert things.factory("plain", "plain:x") is built_in
    assert things.plugins() == [Plugin("plain", "acme_things 1.2", "hidden")]


def test_a_scheme_of_two_packages_is_refused_by_their_names(
    install: Install, things: Registry[Callable[[str], str]]
) -> None:
    install("acme_things", {"acme": "acme_things:make"}, "")
    install("other_things", {"acme": "other_things:make"}, "")
    with pytest.raises(ConfigError, match=r"'acme' is brought by acme_things 1\.2 and by other_things 1\.2: uninstall"):
        things.factory("acme", "acme:x")
    assert [plugin.state for plugin in things.plugins()] == ["ambiguous", "ambiguous"]


def test_an_installed_embedder_is_asked_for_by_its_scheme(install: Install) -> None:
    """In a configuration, where it is not imported yet, and where it is made."""
    install(
        "acme_models",
        {"acme": "acme_models:make"},
        "from penstock.engine.embedders import Gist\ndef make(rest, options): return Gist(int(options['size']))\n",
        "penstock.embedders",
    )
    assert ServiceConfig(to="photos.db", embedder="acme:small?size=64").embedder == "acme:small?size=64"
    assert "acme_models" not in sys.modules
    assert parse_embedder("acme:small", size=96).spec == "gist:96"


def test_a_sink_that_is_none_is_refused(install: Install) -> None:
    """Rather than failing anywhere in the job."""
    install("acme_store", {"acmestore": "acme_store:make"}, "def make(uri, options): return 5", "penstock.sinks")
    with pytest.raises(
        ConfigError, match=r"^to: 'acmestore:x': the plugin of 'acmestore' made a int, which is no Sink"
    ):
        make_sink("acmestore:x", SinkOptions())


def test_doctor_lists_what_is_built_in_and_what_is_installed(install: Install) -> None:
    """By kind. What is of no use is a warning with a way out."""
    (embedders,) = (plugins(each) for each in registries() if each.group == "penstock.embedders")
    assert (embedders.name, embedders.status) == ("embedders", "ok")
    assert "gist, jax, onnx" in embedders.detail
    assert "installed: none" in embedders.detail
    install("acme_models", {"acme": "acme_models:make", "gist": "acme_models:gist"}, "", "penstock.embedders")
    (embedders,) = (plugins(each) for each in registries() if each.group == "penstock.embedders")
    assert embedders.status == "warn"
    assert "installed: acme (acme_models 1.2)" in embedders.detail
    assert "acme_models 1.2 brings 'gist', which is built in" in embedders.detail
    install("other_models", {"acme": "other_models:make"}, "", "penstock.embedders")
    (embedders,) = (plugins(each) for each in registries() if each.group == "penstock.embedders")
    assert "installed: none" in embedders.detail
    assert "other_models 1.2 brings 'acme', which others bring, too" in embedders.detail


def test_options_are_what_follows_the_question_mark() -> None:
    assert split_options("thing", "acme:x?a=1&b=%26") == ("acme:x", {"a": "1", "b": "&"})
    assert split_options("thing", "acme:x") == ("acme:x", {})
    with pytest.raises(ConfigError, match=r"^thing: 'acme:x\?a': options are written \?name=value&name=value"):
        split_options("thing", "acme:x?a")


def test_a_path_has_no_scheme() -> None:
    """Also where it has a colon, behind a slash."""
    schemes = {
        "photos.db": None,
        "./a:b.db": None,
        "/a:b": None,
        "bulk:x": "bulk",
        "HTTP://x": "http",
        "a+b.c-1:": "a+b.c-1",
    }
    assert {spec: scheme_of(spec) for spec in schemes} == schemes
