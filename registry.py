"""A registry: from a scheme to the factory of what it names, built in or brought by an installed package.

Packages register theirs as entry points (``penstock.sources``, ``penstock.sinks``, ``penstock.embedders``,
``penstock.detectors``): the name of an entry point is the scheme, its value the factory. One is imported when its
scheme is first asked for, never before; installed packages are not even looked for while what is asked for is built in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, cast
from urllib.parse import parse_qsl

from .errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")

FactoryT = TypeVar("FactoryT", bound=Callable[..., Any])

State = Literal["ready", "hidden", "ambiguous"]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A factory that an installed package brings; it has not been imported.

    Attributes:
        scheme: what it is asked for by.
        package: its name and version: ``penstock-lancedb 0.3``.
        state: hidden: something built in has this scheme, and keeps it; ambiguous: another package has it, too, and
            asking for it is refused.
    """

    scheme: str
    package: str
    state: State


class Registry(Generic[FactoryT]):
    """Factories by scheme.

    Args:
        field: the setting whose value names the scheme, for messages: ``embedder``.
        group: of entry points: ``penstock.embedders``.
        built_in: scheme -> factory. No package can take one of these over. Kept, not copied.
    """

    def __init__(self, field: str, group: str, built_in: Mapping[str, FactoryT]) -> None:
        self.field, self.group, self.built_in = field, group, built_in
        self._loaded: dict[str, FactoryT] = {}

    def __repr__(self) -> str:
        return f"<Registry {self.group}: {', '.join(sorted(self.built_in))}>"

    def factory(self, scheme: str, asked: str) -> FactoryT:
        """The factory of a scheme; imports the package that brings it.

        Args:
            scheme: what to look for.
            asked: what the user wrote, to be quoted in messages: without secrets.

        Raises:
            ConfigError: there is none, there are several, or its package is broken.
        """
        found = self.built_in.get(scheme) or self._loaded.get(scheme)
        if found is None:
            if why := self.problem(scheme):
                raise self._error(asked, why)
            (entry,) = self._entries(scheme)
            found = self._loaded[scheme] = self._import(entry, asked)
        return found

    def parsed(self, spec: str, options: Mapping[str, object]) -> tuple[FactoryT, str, dict[str, str]]:
        """What ``scheme[:rest][?option=value&option=value]`` asks for.

        Args:
            spec: what the user wrote.
            options: more options; they win over those in `spec`.

        Returns:
            The factory, what follows the scheme's colon, and all options as texts.

        Raises:
            ConfigError: see `factory` and `split_options`.
        """
        head, given = split_options(self.field, spec)
        scheme, _, rest = head.partition(":")
        factory = self.factory(scheme, spec)
        return factory, rest, given | {name: str(value) for name, value in options.items()}

    def problem(self, scheme: str) -> str | None:
        """Why there is no factory for a scheme, or no single one, in words; None where there is. Imports nothing."""
        if scheme in self.built_in:
            return None
        match self._entries(scheme):
            case [_]:
                return None
            case []:
                names = self.schemes()
                near = difflib.get_close_matches(scheme, names, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                return f"there is no {scheme!r}, there are {', '.join(names)}{hint}"
            case several:
                return f"{scheme!r} is brought by {' and by '.join(map(_package, several))}: uninstall all but one"

    def schemes(self) -> list[str]:
        """What can be asked for, built in and installed, in order of names. Imports nothing."""
        return sorted({*self.built_in, *(entry.name for entry in self._entries())})

    def plugins(self) -> list[Plugin]:
        """What installed packages bring, in order of schemes. Imports nothing."""
        return [Plugin(entry.name, _package(entry), self._state(entry.name)) for entry in self._entries()]

    def _state(self, scheme: str) -> State:
        if scheme in self.built_in:
            return "hidden"
        return "ready" if len(self._entries(scheme)) == 1 else "ambiguous"

    def _entries(self, scheme: str | None = None) -> list[EntryPoint]:
        from importlib.metadata import entry_points  # 40 ms, for those only who ask for what is not built in

        found = entry_points(group=self.group) if scheme is None else entry_points(group=self.group, name=scheme)
        return sorted(found, key=lambda entry: (entry.name, _package(entry)))

    def _import(self, entry: EntryPoint, asked: str) -> FactoryT:
        plugin = f"the plugin {entry.name!r} of {_package(entry)}"
        try:
            factory = entry.load()
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}"
            raise self._error(asked, f"{plugin} cannot be imported ({entry.value}): {said}") from error
        if not callable(factory):
            raise self._error(asked, f"{plugin} is no factory: {entry.value} is a {type(factory).__name__}")
        return cast("FactoryT", factory)  # as the package promises by its group

    def _error(self, asked: str, what: str) -> ConfigError:
        return ConfigError(f"{self.field}: {asked!r}: {what}")


def scheme_of(spec: str) -> str | None:
    """What stands before the first colon, in small letters; None for a path, which has none before its first slash."""
    found = _SCHEME.match(spec)
    return found[1].lower() if found else None


def split_options(field: str, spec: str) -> tuple[str, dict[str, str]]:
    """What stands before the question mark of ``scheme:rest?option=value&option=value``, and the options.

    Args:
        field: the setting it is a value of, for the message.
        spec: what the user wrote.

    Raises:
        ConfigError: the options are not written like that.
    """
    head, _, query = spec.partition("?")
    try:
        return head, dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise ConfigError(f"{field}: {spec!r}: options are written ?name=value&name=value") from error


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed package"
