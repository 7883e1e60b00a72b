"""Refusals of a setting, said the way the user spelled it: ``--batch-size``, ``photos.yaml, line 3: batch_size``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, cast, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from ...errors import ConfigError, PenstockError, SourceError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_spelling: ContextVar[Mapping[str, str]] = ContextVar("spelling")

_SHOULD: Final = re.compile(r"^(Input|String) should")
"""How pydantic begins; what is refused is named before."""

ABOVE: Final[Mapping[str, str]] = {"uri": "to", "field": "fields", "size": "image_size"}
"""What the floors below call a setting -> its field."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How the user spelled the fields of a configuration. All are equal: how a value was said does not change it.

    Attributes:
        names: dotted name -> ``--batch-size``, or ``photos.yaml, line 3: batch_size``; what is missing was said in
            Python, or not at all.
    """

    names: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    @classmethod
    def current(cls) -> Self:
        """That of the `spelled` blocks around the caller."""
        return cls(_spelling.get({}))


@contextmanager
def spelled(names: Mapping[str, str]) -> Generator[None]:
    """While the block runs, a field is called by what ``names`` has for its dotted name.

    That holds for every error that leaves the block and begins with the name of a field, wherever it comes from.
    """
    both = {**_spelling.get({}), **names}
    token = _spelling.set(both)
    try:
        yield
    except (PenstockError, BaseExceptionGroup) as error:
        _respell(error, both)
        raise
    finally:
        _spelling.reset(token)


def _respell(error: BaseException, names: Mapping[str, str]) -> None:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            _respell(member, names)
    elif isinstance(error, (ConfigError, SourceError)):
        before = str(error)
        after = "\n".join(_respelled(line, names) for line in before.split("\n"))
        if after != before:
            error.args = (after,)


def _respelled(line: str, names: Mapping[str, str]) -> str:
    name, colon, text = line.partition(": ")
    if not colon:
        return line
    above = name if name in names else ABOVE.get(name, name)
    return f"{names.get(above, above)}: {text}"


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line per refused field: its name, its value, what is allowed."""
    lines = dict.fromkeys(line for details in error.errors(include_url=False) for line in _lines(details, model))
    return "\n".join(lines)


def no_such(name: str, known: list[str]) -> str:
    """That a name is not known, and which was meant or which there are."""
    near = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    return f"no such setting; did you mean {near[0]}?" if near else f"no such setting; there are {', '.join(known)}"


def _value_of(name: str, model: type[BaseModel]) -> str | None:
    """That a name is no setting but the value of one, which is a flag on the command line."""
    for known, info in model.model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("flags") and name in get_args(info.annotation):
            return f"no such setting; did you mean {known}: {name}?"
    return None


def _lines(details: ErrorDetails, model: type[BaseModel]) -> list[str]:
    name = str(details["loc"][0]) if details["loc"] else ""
    inner = details.get("ctx", {}).get("error")
    if isinstance(inner, ConfigError):  # a section, or an address, that explained itself already
        return [line if line.startswith(f"{name}: ") else f"{name}.{line}" for line in str(inner).split("\n")]
    kind = details["type"]
    if kind in ("extra_forbidden", "no_such_attribute"):
        return [f"{name}: {_value_of(name, model) or no_such(name, list(model.model_fields))}"]
    if kind == "frozen_field":
        return [f"{name}: is chosen when the configuration is made: make a new ServiceConfig"]
    text = _SHOULD.sub("must", details["msg"].removeprefix("Value error, "))
    value = "this value" if _is_secret(model, name) else f"{_shown(details['input']):.200}"
    return [f"{name}: {value} is not allowed: {text}"]


def _shown(given: object) -> str:
    """As the user wrote it: what an option was given, once or more often, comes as a tuple."""
    if isinstance(given, tuple) and given:
        return ", ".join(map(repr, cast("tuple[object, ...]", given)))
    return repr(given)


def _is_secret(model: type[BaseModel], name: str) -> bool:
    known = model.model_fields.get(name)
    return known is not None and SecretStr.__name__ in str(known.annotation)
