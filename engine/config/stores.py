"""Settings of one store among several: behind its address (``photos.db?collection=a``), or in a mapping with it."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final, cast
from urllib.parse import parse_qsl, quote

from pydantic import PlainSerializer, PlainValidator

from ...errors import ConfigError
from ...messages import redact
from .messages import ABOVE

STORE_FIELDS: Final = frozenset(
    {
        *("collection", "mode", "fields", "metric", "index", "index_params", "wait_index", "partition"),
        *("partition_key", "retry_for"),
    }
)
"""Fields that a store can have for itself. What it does not have for itself is as the job says."""

_QUERY: Final = re.compile(r"\?([A-Za-z_]\w*=[^?&]*(?:&[A-Za-z_]\w*=[^?&]*)*)$")
_PLAIN: Final = "/:=,()[]{}* "
"""Characters that need no escape in a value."""

_TOKENS: Final = "the secret of one store stands in its address, as in https://user:password@host"


def split_settings(uri: str) -> tuple[str, dict[str, str]]:
    """An address without the settings behind it, and these. Options of the sink's own stay with the address.

    Raises:
        ConfigError: one is given twice, or is a secret.
    """
    found = _QUERY.search(uri)
    if found is None:
        return uri, {}
    own: dict[str, str] = {}
    others: list[str] = []
    for pair in found[1].split("&"):
        ((name, value),) = parse_qsl(pair, keep_blank_values=True)
        if name == "token":
            raise ConfigError(f"to: token: {_TOKENS}")
        if name in own:
            raise ConfigError(f"to: {name}: is given twice for one store")
        if name in STORE_FIELDS:
            own[name] = value
        else:
            others.append(pair)
    return uri[: found.start()] + (f"?{'&'.join(others)}" if others else ""), own


def with_settings(uri: str, own: Mapping[str, str]) -> str:
    """The reverse of `split_settings`."""
    pairs = "&".join(f"{name}={quote(value, safe=_PLAIN)}" for name, value in own.items())
    return f"{uri}{'&' if _QUERY.search(uri) else '?'}{pairs}" if pairs else uri


@contextmanager
def about_store(address: str, own: Mapping[str, str]) -> Generator[None]:
    """While the block runs, an error about one of these settings names the store that has it.

    Args:
        address: of the store.
        own: its settings.
    """
    try:
        yield
    except ConfigError as error:
        error.args = ("\n".join(_placed(line, address, own) for line in str(error).split("\n")),)
        raise


def _placed(line: str, address: str, own: Mapping[str, str]) -> str:
    name, _, text = line.partition(": ")
    field = ABOVE.get(name, name)
    return f"to: {redact(address)!r}: {field}: {text}" if field in own else line


def _destinations(value: object) -> str | tuple[str, ...] | None:
    """One address or several, as text; a path may stand for one, or a mapping that has settings of the store, too."""
    several = value if isinstance(value, list | tuple) else [value]
    if value is None or not several:
        return None
    texts = tuple(map(_destination, cast("list[object]", several)))
    return texts[0] if len(texts) == 1 else texts


def _destination(value: object) -> str:
    if isinstance(value, Mapping):
        value = _address_of(cast("Mapping[str, Any]", value))
    if isinstance(value, os.PathLike):
        value = os.fspath(cast("os.PathLike[str]", value))
    if not isinstance(value, str):
        raise ValueError("must be an address (photos.db, http://host:19530, bulk:DIR...), or a list of them")
    split_settings(value)  # what cannot be is refused here
    return value


Destinations = Annotated[str | tuple[str, ...] | None, PlainValidator(_destinations), PlainSerializer(lambda to: to)]
"""Where rows go."""


def _address_of(mapping: Mapping[str, Any]) -> str:
    """``{to: photos.db, collection: a}`` as ``photos.db?collection=a``.

    Raises:
        ConfigError: it names no store, or has a secret.
    """
    settings = dict(mapping)
    uri = settings.pop("to", None)
    if isinstance(uri, os.PathLike):
        uri = os.fspath(cast("os.PathLike[str]", uri))
    if not isinstance(uri, str):
        raise ConfigError("to: each store needs its address, as in {to: photos.db, collection: a}")
    if "token" in settings:
        raise ConfigError(f"to: token: {_TOKENS}")
    return with_settings(uri, {name: _text(name, value) for name, value in settings.items() if value is not None})


def _text(name: str, value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    between = ":" if name == "fields" else "="
    return ",".join(f"{key}{between}{each}" for key, each in cast("Mapping[str, object]", value).items())
