"""Users' own callables: how they are found, tried, called and blamed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.engine.embedders import ArrayView, Embedder, parse_embedder
from penstock.errors import ConfigError, EmbedderError, EmbedError

_names = itertools.count()
Write = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Spec:
    """Pixels as a preprocessing specification describes them; `shape` stands for a user's transform."""

    size: int = 4
    dtype: str = "float32"
    layout: str = "NCHW"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    transform: str | None = None
    shape: tuple[int, ...] = (3, 4, 4)

    def pixel_shape(self) -> tuple[int, ...]:
        return self.shape

    def pixel_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A function that writes an importable module and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def module(text: str) -> str:
        name = f"users_module_{next(_names)}"
        (tmp_path / f"{name}.py").write_text("import numpy as np\n" + text)
        return name

    return module


def opened(spec: str, rows: int = 3, pixels: Spec | None = None) -> Embedder:
    embedder = parse_embedder(spec)
    embedder.open(pixels or Spec(), rows)
    return embedder


def view(embedder: Embedder, rows: int = 3) -> ArrayView:
    pixels = np.arange(rows * 48, dtype=np.float32).reshape(rows, 3, 4, 4)
    return ArrayView(pixels, np.zeros((rows, embedder.dimension), np.float32))


def test_a_python_callable_sees_exactly_the_rows(write: Write) -> None:
    """It is given [n, ...], not the whole capacity, and its numbers arrive as float32."""
    name = write("def f(x):\n return np.stack([x.sum((1, 2, 3)), np.full(len(x), len(x))], 1).astype(np.float64)")
    embedder = opened(f"python:{name}:f")
    batch = view(embedder)
    embedder.embed(batch, 2)
    np.testing.assert_allclose(batch.embeddings[:2, 0], batch.pixels[:2].sum((1, 2, 3)))
    assert batch.embeddings[:, 1].tolist() == [2, 2, 0]


@pytest.mark.parametrize("scheme", ["python", "jax"])
def test_a_class_is_made_once(write: Write, scheme: str) -> None:
    """A class loads its model in __init__; it is made once for all batches."""
    name = write(
        "made = []\nclass M:\n def __init__(self):\n  made.append(1)\n def __call__(self, x):\n  return x[:, 0, 0]"
    )
    embedder = opened(f"{scheme}:{name}:M")
    for _ in range(3):
        embedder.embed(view(embedder), 3)
    assert sys.modules[name].made == [1]
    assert embedder.dimension == 4


def test_nested_names_are_followed(write: Write) -> None:
    """module:object.method names a method of an object of the module."""
    name = write("class M:\n def f(self, x):\n  return x[:, 0, 0]\nmodel = M()")
    assert opened(f"python:{name}:model.f").dimension == 4


def test_pixels_cannot_be_changed_in_place(write: Write) -> None:
    """A callable that normalizes in place would spoil the slot for a second attempt, so it gets a read-only view."""
    name = write("def f(x):\n x -= 1\n return x[:, 0, 0]")
    with pytest.raises(EmbedderError, match="read-only"):
        opened(f"python:{name}:f")


@pytest.mark.parametrize("scheme", ["python", "jax"])
@pytest.mark.parametrize(
    "body", ["x[:, 0]", "x[0, 0, 0]", "x.sum()", "x[:1, 0, 0]", "None", "(x[:, 0, 0], x[:, 0, 0])", "x[:, 0, 0, :0]"]
)
def test_wrong_results_are_refused_at_open(write: Write, scheme: str, body: str) -> None:
    """Whatever is not [n, D] numbers is found by the trial, and the callable is named."""
    name = write(f"def f(x):\n return {body}")
    with pytest.raises(EmbedderError, match=rf"{scheme}:{name}:f"):
        opened(f"{scheme}:{name}:f")


def test_text_is_not_a_vector(write: Write) -> None:
    """An array of the right shape and the wrong kind is refused."""
    name = write("def f(x):\n return np.array([['a', 'b']] * len(x))")
    with pytest.raises(EmbedderError, match="must return numbers"):
        opened(f"python:{name}:f")


def test_a_dimension_that_changes_is_refused(write: Write) -> None:
    """Vectors of another length than in the trial do not fit the slot."""
    name = write("def f(x):\n return np.zeros((len(x), 4 if x.sum() == 0 else 5))")
    embedder = opened(f"python:{name}:f")
    with pytest.raises(EmbedderError, match="5 floats, and 4 before"):
        embedder.embed(view(embedder), 3)


def test_an_exception_is_about_the_pictures(write: Write) -> None:
    """A callable that fails on a batch refuses the picture it fails on alone; its exception is the cause."""
    name = write("def f(x):\n if x.max() > 1: raise ValueError('too bright')\n return x[:, 0, 0] + 1")
    embedder = opened(f"python:{name}:f")
    batch = view(embedder)
    batch.pixels[...] = 0
    batch.pixels[1] = 2
    ((row, error),) = embedder.embed(batch, 3).items()
    assert row == 1
    assert isinstance(error, EmbedError)
    assert f"python:{name}:f raised ValueError: too bright" in str(error)
    assert isinstance(error.__cause__, ValueError)
    assert batch.embeddings[[0, 2]].all()
    assert not batch.embeddings[1].any()


@pytest.mark.parametrize("kind", ["ConnectionResetError", "TimeoutError", "ValueError"])
def test_an_attempt_passes_on_what_is_transient(write: Write, kind: str) -> None:
    """No row is blamed for a server that is away, also where it goes away halfway; the last call, `embed`, blames."""
    name = write(
        "sizes = []\ndef f(x):\n sizes.append(len(x))\n"
        " if x.max() > 1 and len(x) < 3:\n"
        f"  raise {kind}('no')\n"
        " if x.max() > 1:\n"
        "  raise ValueError('too bright')\n"
        " return x[:, 0, 0] + 1"
    )
    embedder = opened(f"python:{name}:f")
    batch = view(embedder)
    batch.pixels[...] = 0
    batch.pixels[2] = 2
    if kind == "ValueError":
        assert list(embedder.attempt(batch, 3)) == [2]
    else:
        with pytest.raises(EmbedError, match=kind):
            embedder.attempt(batch, 3)
        assert sys.modules[name].sizes[1:] == [3, 1, 2]
    assert list(embedder.embed(batch, 3)) == [2]


def test_an_exception_in_the_trial_stops_the_job(write: Write) -> None:
    """What fails on black pictures is not about pictures: the whole embedder is refused before the start."""
    name = write("def f(x):\n raise ValueError('no such model')")
    with pytest.raises(EmbedderError, match=r"no such model.*black pictures of \[2, 3, 4, 4\] float32"):
        opened(f"python:{name}:f")


def test_the_trial_uses_the_transforms_pixels(write: Write) -> None:
    """The shape comes from the specification, also where a user's transform made it."""
    name = write("def f(x):\n return x")
    assert opened(f"python:{name}:f", pixels=Spec(transform="my:own", shape=(7,))).dimension == 7
    assert opened(f"jax:{name}:f", pixels=Spec(transform="my:own", shape=(9,))).dimension == 9


def test_a_jax_function_that_cannot_be_traced_is_named(write: Write) -> None:
    """Python control flow on values fails at open(), with the shape it was tried on."""
    name = write("def f(x):\n return x if x.sum() > 0 else -x")
    with pytest.raises(EmbedderError, match=rf"jax:{name}:f cannot be traced on \[3, 3, 4, 4\] float32"):
        opened(f"jax:{name}:f")


@pytest.mark.parametrize("scheme", ["python", "jax"])
@pytest.mark.parametrize(
    "target", ["", "module", "module:", ":f", "mod ule:f", "module:f()", "a:b:c", "module:f.", "os.:f"]
)
def test_a_malformed_target_is_refused_when_parsed(scheme: str, target: str) -> None:
    """module:callable is all there is; nothing is evaluated."""
    with pytest.raises(ConfigError, match=rf"write {scheme}:module:callable"):
        parse_embedder(f"{scheme}:{target}")


@pytest.mark.parametrize("scheme", ["python", "jax"])
def test_what_cannot_be_imported_is_named(write: Write, scheme: str) -> None:
    """A missing module, a missing attribute, and a thing that cannot be called are three clear setting errors."""
    name = write("number = 3")
    for target, message in (("no_such_module_anywhere:f", "PYTHONPATH"), (f"{name}:g", "has no 'g'")):
        with pytest.raises(ConfigError, match=message):
            opened(f"{scheme}:{target}")
    with pytest.raises(ConfigError, match="is a int, which cannot be called"):
        opened(f"{scheme}:{name}:number")


def test_a_module_or_class_that_fails_is_the_embedders_error(write: Write) -> None:
    """A crash while importing or making the class says where."""
    with pytest.raises(EmbedderError, match="cannot be imported: ZeroDivisionError"):
        opened(f"python:{write('1 / 0')}:f")
    name = write("class M:\n def __init__(self, path):\n  pass\n def __call__(self, x):\n  return x")
    with pytest.raises(EmbedderError, match="without arguments"):
        opened(f"python:{name}:M")


@pytest.mark.parametrize("scheme", ["python", "jax"])
def test_fingerprint_follows_the_modules_text_without_importing_it(write: Write, tmp_path: Path, scheme: str) -> None:
    """An edited module has another fingerprint, and asking does not import it."""
    name = write("def f(x):\n return x[:, 0, 0]")
    before = parse_embedder(f"{scheme}:{name}:f").fingerprint
    assert parse_embedder(f"{scheme}:{name}:f").fingerprint == before
    assert parse_embedder(f"{scheme}:{name}:g").fingerprint != before
    (tmp_path / f"{name}.py").write_text("def f(x):\n return x[:, 0, 1]")
    assert parse_embedder(f"{scheme}:{name}:f").fingerprint != before
    assert name not in sys.modules


def test_a_version_takes_the_place_of_the_text(write: Write, tmp_path: Path) -> None:
    """With ?version= an edit that changes no vectors, such as a comment, does not change the fingerprint."""
    name = write("def f(x):\n return x[:, 0, 0]")
    before = parse_embedder(f"python:{name}:f?version=1").fingerprint
    (tmp_path / f"{name}.py").write_text("# edited\n")
    assert parse_embedder(f"python:{name}:f", version=1).fingerprint == before
    assert parse_embedder(f"python:{name}:f", version=2).fingerprint != before


def test_code_without_a_file_needs_a_version() -> None:
    """A function of a notebook cannot be told from its next edit, so a fingerprint is refused, with the way out."""
    with pytest.raises(ConfigError, match=r"python:no_such_module:f\?version=1"):
        _ = parse_embedder("python:no_such_module:f").fingerprint
    assert parse_embedder("python:no_such_module:f?version=1").fingerprint
