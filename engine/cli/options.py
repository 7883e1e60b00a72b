"""Command-line options made of the configuration's fields: one table, no second list."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from ..config.dedup import DedupConfig
from ..config.messages import spelled
from ..config.model import PER_RUN, ServiceConfig
from ..config.videos import VideoConfig
from ..config.volumes import PipelineConfig
from .help import GroupedCommand

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Config = TypeVar("_Config", bound=ServiceConfig)

MODELS = {model.kind: model for model in (DedupConfig, PipelineConfig, VideoConfig, ServiceConfig)}
"""Configurations, by what their jobs are about."""

_EVERY = {name: info for model in MODELS.values() for name, info in model.model_fields.items()}
"""The fields of all models."""

SECTIONS = frozenset({"async_pipeline"})
"""Fields that are sections of a file: they are about the Python API and have no option."""

FIELDS = tuple(name for name in ServiceConfig.model_fields if name not in SECTIONS)
"""Every field that is an option of ``embed``."""

RUN_FIELDS = tuple(name for name in FIELDS if name in PER_RUN)
"""Every field that is an option of ``resume`` and ``retry``."""

_FLAGS = {
    "append": "Keep the rows that are there; a picture that is among them is written over. This is the default.",
    "overwrite": "Replace the collection (or the --partition): the old rows go when the first new ones come.",
}
"""Help of the values of a field that are flags of their own: one of them may be given."""


def option_name(field: str) -> str:
    """``--batch-size`` of ``batch_size``; of a choice among flags all of them, ``--append|--overwrite``."""
    flags = _flags(field)
    if flags:
        return "|".join(f"--{value}" for value in flags)
    extra = _extra(field)
    return str(extra.get("option") or extra.get("called") or "--" + field.replace("_", "-"))


def setting_options(
    *fields: str, defaults: bool = True, model: type[ServiceConfig] = ServiceConfig
) -> Callable[[_Command], _Command]:
    """Add an option for each of these fields, in this order. An option that is not given is None.

    Args:
        fields: of the model.
        defaults: whether the help tells them: no, where what is not given is as in an earlier run.
        model: whose fields.
    """

    def add(command: _Command) -> _Command:
        for field in reversed(fields):
            for value in reversed(_flags(field)):
                command = click.option(f"--{value}", _flag(field, value), is_flag=True, help=_FLAGS[value])(command)
            if not _flags(field):
                command = _option(field, model.model_fields[field], defaults)(command)
        return command

    return add


class JobCommand(GroupedCommand):
    """A command that goes on with a job: what its first command chose is no option, and is said to be none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click.

        Raises:
            click.UsageError: an option that the job was begun with; the message says why it is none here.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            named = error.option_name
            if not any(named in option_name(field).split("|") for field in FIELDS if field not in PER_RUN):
                raise
            raise click.UsageError(
                f"{named}: belongs to what the job was begun with, which a later run may not change (penstock status"
                " shows it). Take another --job folder for another job, or the first command with --accept-changes",
                ctx,
            ) from error


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given on the command line, with their values."""
    return {field: value for field, value in _joined(options).items() if value is not None}


def spelled_as_options() -> AbstractContextManager[None]:
    """While the block runs, fields are called by their options, also later by a configuration that is made in it."""
    return spelled({field: option_name(field) for field in _EVERY if field not in SECTIONS})


def configured(file: str | None, options: Mapping[str, Any], **arguments: str) -> ServiceConfig:
    """The configuration of a file and of what was given on the command line; see `configured_as`."""
    return configured_as(ServiceConfig, file, options, **arguments)


def configured_as(model: type[_Config], file: str | None, options: Mapping[str, Any], **arguments: str) -> _Config:
    """The configuration of a file and of what was given on the command line, which wins.

    Args:
        model: whose fields they are.
        file: YAML.
        options: field -> what was given for it, None for nothing.
        arguments: field -> the name of the argument that it is here.

    Raises:
        ConfigError: a value is not allowed; it is called as the user spelled it.
    """
    given = given_of(options)
    with spelled_as_options(), spelled(arguments):
        return model.from_yaml(file, **given) if file else model(**given)


def _joined(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as values of fields: of a choice among flags the one that was given."""
    values = {field: value or None if isinstance(value, tuple) else value for field, value in options.items()}
    for field in FIELDS:
        flags = _flags(field)
        chosen = [value for value in flags if values.pop(_flag(field, value), False)]
        if len(chosen) > 1:
            raise click.UsageError(f"{' and '.join(f'--{value}' for value in chosen)} exclude one another: give one")
        if chosen:
            values[field] = chosen[0]
    return values


def _flags(field: str) -> tuple[str, ...]:
    return get_args(_EVERY[field].annotation) if _extra(field).get("flags") else ()


def _flag(field: str, value: str) -> str:
    return f"{field}_{value}"


def _extra(field: str) -> Mapping[str, Any]:
    extra = _EVERY[field].json_schema_extra if field in _EVERY else None
    return extra if isinstance(extra, dict) else {}


def _option(field: str, info: FieldInfo, defaults: bool) -> Callable[[_Command], _Command]:
    if info.annotation is bool:  # None where it is not given: a file may say it then
        name = option_name(field)
        name += f"/--no-{name.removeprefix('--')}" if info.default else ""
        return click.option(name, field, is_flag=True, default=None, help=_help(info, defaults))
    extra = _extra(field)
    metavar = extra.get("metavar")
    return click.option(
        option_name(field),
        field,
        # Values stay text here: the model is the only judge of them, whatever their spelling.
        type=_choice(info.annotation) or str,
        metavar=metavar if isinstance(metavar, str) else None,
        multiple="option" in extra,
        help=_help(info, defaults),
    )


def _help(info: FieldInfo, defaults: bool) -> str:
    text = " ".join((info.description or "").split())
    if not defaults:
        return re.sub(r" \[default: [^]]*\]", "", text)
    # Named before anything of the environment is read: a secret must not become a default in a help text.
    default = None if info.default_factory else info.default
    return text if default is None or default is False or default in ({}, ()) else f"{text} [default: {default}]"


def _choice(annotation: Any) -> click.Choice[str] | None:
    """The choice of a Literal, also where None is allowed too."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for part in get_args(annotation) if (found := _choice(part))), None)
    return click.Choice(get_args(annotation), case_sensitive=False) if get_origin(annotation) is Literal else None
