"""What is imported at first use, by its name: a process pays only for the parts it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a package, or of a module.

    Args:
        package: its ``__name__``. What it lists is its ``__all__``.
        modules: module below it, or with a dot in front beside it -> the names that are there.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{homes[name]}", package), name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted(sys.modules[package].__all__)

    return get, listed


def is_import_name(text: str) -> bool:
    """Whether it is written ``module:name``; both may have dots in them."""
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def import_named(name: str) -> Any:
    """What ``module:name`` is the name of, its module imported.

    Raises:
        ImportError, AttributeError, ValueError: nothing has this name; or whatever the module raises.
    """
    module, _, attribute = name.partition(":")
    return attrgetter(attribute)(import_module(module))
