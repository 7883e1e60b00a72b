"""A YAML file as settings, with the line each of them stands on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from ...errors import ConfigError


@dataclass(frozen=True, slots=True)
class YamlSettings:
    """The content of a file.

    Attributes:
        values: its mapping.
        spelling: dotted name -> ``FILE, line N: dotted name``.
    """

    values: dict[str, Any]
    spelling: dict[str, str]


def read_yaml(path: str | os.PathLike[str]) -> YamlSettings:
    """Read a file of settings. Only plain data: tags that would make Python objects are refused.

    Raises:
        ConfigError: not there, not readable, not YAML, not a mapping, or a key given twice.
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8") as file:
            text = file.read()
        root = yaml.compose(text, yaml.SafeLoader)
        values: object = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{name}: the configuration cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        # Not error itself: its text quotes the line, which may hold a secret.
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{where}: not a YAML file of plain settings: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(
            f"{name}: not a YAML file of plain settings: it holds characters that YAML does not allow"
        ) from None
    if root is None:
        return YamlSettings({}, {})
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise ConfigError(f"{name}: must be a mapping such as 'batch_size: 32', not {type(values).__name__}")
    spelling: dict[str, str] = {}
    for dotted, line in _keys(root):
        if dotted in spelling:
            raise ConfigError(
                f"{name}, line {line}: {dotted} is given twice (before: {spelling[dotted].split(':')[0]})"
            )
        spelling[dotted] = f"{name}, line {line}: {dotted}"
    return YamlSettings({str(key): value for key, value in values.items()}, spelling)


def _keys(node: yaml.MappingNode, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Dotted names and their lines, from 1."""
    for key, value in node.value:
        dotted = f"{prefix}{key.value}"
        yield dotted, key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            yield from _keys(value, f"{dotted}.")
