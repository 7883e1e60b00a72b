"""Command-line options made of the configuration's fields: one table, no second list."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from .config import ServiceConfig
from .config_errors import spelled

_Command = TypeVar("_Command", bound=Callable[..., Any])

SECTIONS = frozenset({"async_pipeline"})
"""Fields that are sections of a file: they are about the Python API and have no option."""

FIELDS = tuple(name for name in ServiceConfig.model_fields if name not in SECTIONS)
"""Every field that is an option of ``embed``."""


def option_name(field: str) -> str:
    """``--batch-size`` of ``batch_size``."""
    return "--" + field.replace("_", "-")


def setting_options(*fields: str) -> Callable[[_Command], _Command]:
    """Add an option for each of these fields, in this order. An option that is not given is None."""

    def add(command: _Command) -> _Command:
        for field in reversed(fields):
            command = _option(field, ServiceConfig.model_fields[field])(command)
        return command

    return add


def configured(file: str | None, options: Mapping[str, Any]) -> ServiceConfig:
    """The configuration of a file and of what was given on the command line, which wins.

    Raises:
        ConfigError: a value is not allowed; it is called as the user spelled it.
    """
    given = {field: value for field, value in options.items() if value is not None}
    with spelled({field: option_name(field) for field in given}):
        return ServiceConfig.from_yaml(file, **given) if file else ServiceConfig(**given)


def _option(field: str, info: FieldInfo) -> Callable[[_Command], _Command]:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    metavar = extra.get("metavar")
    return click.option(
        option_name(field),
        field,
        # Values stay text here: the model is the only judge of them, whatever their spelling.
        type=_choice(info.annotation) or str,
        metavar=metavar if isinstance(metavar, str) else None,
        help=_help(info),
    )


def _help(info: FieldInfo) -> str:
    text = " ".join((info.description or "").split())
    # Named before anything of the environment is read: a secret must not become a default in a help text.
    default = None if info.default_factory else info.default
    return text if default is None else f"{text} [default: {default}]"


def _choice(annotation: Any) -> click.Choice[str] | None:
    """The choice of a Literal, also where None is allowed too."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for part in get_args(annotation) if (found := _choice(part))), None)
    return click.Choice(get_args(annotation)) if get_origin(annotation) is Literal else None
