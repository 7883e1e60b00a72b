"""Refusals of a setting, said the way the user spelled it: ``--batch-size``, ``photos.yaml, line 3: batch_size``."""

from __future__ import annotations

import difflib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pydantic import BaseModel, SecretStr, ValidationError

from ..errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_spelling: ContextVar[Mapping[str, str]] = ContextVar("spelling")


@contextmanager
def spelled(names: Mapping[str, str]) -> Generator[None]:
    """While the block runs, a field is called by what ``names`` has for its dotted name."""
    token = _spelling.set({**_spelling.get({}), **names})
    try:
        yield
    finally:
        _spelling.reset(token)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line per refused field: its name, its value, what is allowed."""
    lines = dict.fromkeys(line for details in error.errors(include_url=False) for line in _lines(details, model))
    return "\n".join(lines)


def no_such(name: str, known: list[str]) -> str:
    """That a name is not known, and which was meant or which there are."""
    near = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    return f"no such setting; did you mean {near[0]}?" if near else f"no such setting; there are {', '.join(known)}"


def _lines(details: ErrorDetails, model: type[BaseModel]) -> list[str]:
    field = str(details["loc"][0]) if details["loc"] else ""
    inner = details.get("ctx", {}).get("error")
    if isinstance(inner, ConfigError):  # a section that explained itself already
        return [
            _said(f"{field}.{name}", text)
            for name, _, text in (line.partition(": ") for line in str(inner).split("\n"))
        ]
    kind = details["type"]
    if kind in ("extra_forbidden", "no_such_attribute"):
        return [_said(field, no_such(field, list(model.model_fields)))]
    if kind == "frozen_field":
        return [_said(field, "is chosen when the configuration is made: make a new ServiceConfig")]
    text = details["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    value = "this value" if _is_secret(model, field) else f"{details['input']!r:.200}"
    return [_said(field, f"{value} is not allowed: {text}")]


def _said(dotted: str, text: str) -> str:
    return f"{_spelling.get({}).get(dotted, dotted)}: {text}"


def _is_secret(model: type[BaseModel], field: str) -> bool:
    known = model.model_fields.get(field)
    return known is not None and SecretStr.__name__ in str(known.annotation)
