"""What a user says of a table: ``parquet:part-*.parquet?image=image&key=id&columns=caption,year``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlencode

from ....errors import ConfigError
from ....registry import split_options
from ..container_finder import place_named, without_scheme

ALL = "*"
"""Stands for every column that can be metadata."""

OPTIONS: Final = ("image", "key", "columns")
"""What may be said of a table, behind a question mark."""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """Where tables lie, and which columns are wanted of them.

    Attributes:
        scheme: the format.
        place: of the tables: a path, a glob, or with braces.
        image: the column of pictures; empty: the one that can be it.
        key: the column by which people know a picture; empty: the table's path and the row's number.
        columns: metadata.
    """

    scheme: str
    place: str
    image: str = ""
    key: str = ""
    columns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, spec: str, scheme: str) -> Self:
        """Of what the user wrote, with the scheme or without.

        Raises:
            ConfigError: an option is not known, or nothing is named.
        """
        rest = without_scheme(spec, scheme)
        place, mark, said = rest.rpartition("?")  # a glob may have one, too
        if not mark or "=" not in said:
            place, said = rest, ""
        given = split_options("source", f"?{said}")[1]
        if unknown := sorted(given.keys() - {*OPTIONS}):
            raise ConfigError(f"source: {spec!r}: there is no option {unknown[0]!r}, there are {', '.join(OPTIONS)}")
        if not place:
            raise ConfigError(f"source: {spec!r}: name a table, as in {scheme}:FILE?image=COLUMN&key=COLUMN")
        columns = tuple(filter(None, given.get("columns", "").split(",")))
        return cls(scheme, place_named(place), given.get("image", ""), given.get("key", ""), columns)

    @property
    def options(self) -> str:
        """What is said behind the question mark."""
        said = {"image": self.image, "key": self.key, "columns": ",".join(self.columns)}
        return urlencode({name: value for name, value in said.items() if value}, safe=",*")

    def __str__(self) -> str:
        return f"{self.scheme}:{self.place}" + (f"?{self.options}" if self.options else "")
