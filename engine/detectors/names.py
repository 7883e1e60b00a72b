"""Names of a model's classes: out of the model, or as the user says them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from ...errors import ConfigError

_LONGEST: Final = 1 << 20  # of a text that is parsed, in characters


@dataclass(frozen=True, slots=True)
class Names:
    """By the number that the model gives a class.

    Attributes:
        by_number: Number -> name.
        is_list: They were given in their order, without numbers.
    """

    by_number: Mapping[int, str]
    is_list: bool

    @property
    def count(self) -> int:
        """How many classes there are, those without a name included."""
        return max(self.by_number) + 1

    @property
    def text(self) -> str:
        """All of them, for a fingerprint."""
        return repr(sorted(self.by_number.items()))

    def of(self, number: int) -> str:
        """Its name; one that has none is called by its number."""
        return self.by_number.get(number) or f"class {number}"

    def counted_from(self, first: int) -> Names:
        """Of a list: its first one has this number. Names that came with numbers keep them."""
        if not self.is_list:
            return self
        return Names(dict(enumerate(self.by_number.values(), first)), is_list=True)


def option_names(text: str) -> Names:
    """``person,dog``, or ``@FILE`` with a name a line.

    Raises:
        ConfigError: there is no such file, or no name in it.
    """
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"detector: names={text}: the file cannot be read: {error}") from error
    else:
        lines = text.split(",")
    return _numbered([line.strip() for line in lines if line.strip()], f"detector: names={text}")


def model_names(name: str, meta: Mapping[str, str]) -> Names:
    """What the exporter wrote: a dict from numbers to names, or a list, as text.

    Args:
        name: of the detector, for messages.
        meta: what is in the file beside the model.

    Raises:
        ConfigError: nothing, or something else.
    """
    if "names" not in meta:
        raise ConfigError(f"{name} does not say what its classes are called: say them, as in ?names=person,dog")
    where = f"{name}: its names of classes"
    found = _literal(meta["names"])
    if isinstance(found, list | tuple):
        return _numbered(cast("list[object]", list(found)), where)
    if isinstance(found, dict):
        pairs = cast("dict[object, object]", found)
        if pairs and all(isinstance(key, int) and key >= 0 and isinstance(pairs[key], str) for key in pairs):
            return Names(dict(sorted(cast("dict[int, str]", pairs).items())), is_list=False)
    raise ConfigError(f"{where} cannot be understood: {meta['names'][:80]!r}; say them, as in ?names=person,dog")


def image_size(meta: Mapping[str, str]) -> int | None:
    """The side of the pictures that the exporter had, in pixels; None: it does not say."""
    found = _literal(meta.get("imgsz", ""))
    sides = cast("list[object]", list(found)) if isinstance(found, list | tuple) else [found]
    fitting = [side for side in sides if isinstance(side, int) and 32 <= side < 10_000]
    return max(fitting, default=None)


def _numbered(names: list[object], where: str) -> Names:
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: they must be one or more names, as in ?names=person,dog")
    return Names(dict(enumerate(cast("list[str]", names))), is_list=True)


def _literal(text: str) -> object:
    """A Python literal; None for what is none. Nothing is executed."""
    try:
        return ast.literal_eval(text) if len(text) <= _LONGEST else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
