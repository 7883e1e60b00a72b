"""Every name that the documentation gives can be imported, and the names penstock was asked for with are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import penstock

ROOT = Path(penstock.__file__).parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")])

_DOTTED = re.compile(r"(?<![\w./-])penstock(?:\.[A-Za-z_]\w*)+")
_IMPORT = re.compile(r"^\s*from (penstock[\w.]*) import ([\w, ]+)$", re.MULTILINE)
_NO_NAMES = {
    *("penstock.engine.watchdog", "penstock.fish", "penstock.sources", "penstock.sinks", "penstock.embedders"),
    "penstock.detectors",
    *("penstock.job", "penstock.recipe"),
}
"""A logger; a file of completions; groups of entry points; metadata of a Parquet file."""


def mentioned() -> list[str]:
    """Dotted names, as pages write them."""
    names: set[str] = set()
    for page in PAGES:
        text = page.read_text()
        names.update(_DOTTED.findall(text))
        for module, found in _IMPORT.findall(text):
            names.update(f"{module}.{name.strip()}" for name in found.split(","))
    return sorted(names - _NO_NAMES)


def resolved(dotted: str) -> Any:
    """The module, or what is reached through its attributes.

    Raises:
        ImportError, AttributeError: there is none.
    """
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("dotted", mentioned())
def test_a_documented_name_is_there(dotted: str) -> None:
    """Of README, docs and examples."""
    resolved(dotted)


@pytest.mark.parametrize(
    "dotted",
    [
        *("penstock.preprocess.PreprocessSpec", "penstock.sinks.bulk_import", "penstock.engine.config.ServiceConfig"),
        *(
            "penstock.engine.config.AsyncPipelineConfig",
            "penstock.engine.cli.main",
            "penstock.engine.workers.WorkerPool",
        ),
        *("penstock.engine.embedders.Embedder", "penstock.engine.jobs.images.embed_images"),
    ],
)
def test_a_name_that_was_public_before_stays_where_it_was(dotted: str) -> None:
    """Wherever the module behind it lies now."""
    assert callable(resolved(dotted))


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("ServiceConfig", ("from_yaml", "async_pipeline")),
        ("engine.config.AsyncPipelineConfig", ("preprocess_workers", "embedding_workers", "insert_batch_size")),
        (
            "ImageEmbeddingPipeline",
            ("create_collection", "insert_images", "insert_images_async", "insert_images_streaming"),
        ),
        ("StreamingMultiprocessPreprocessor", ("preprocess_stream",)),
        ("PipelineBuilder", ("add_source", "pipe", "aggregate", "disaggregate", "add_sink", "build")),
        ("engine.Pipeline", ("auto_stop", "start", "stop", "get_item", "get_iterator")),
    ],
)
def test_the_names_penstock_was_asked_for_with_are_there(owner: str, names: tuple[str, ...]) -> None:
    """Classes, and what they can do."""
    found = resolved(f"penstock.{owner}")
    fields: dict[str, Any] = getattr(found, "model_fields", {})
    assert [name for name in names if name not in fields and not hasattr(found, name)] == []
