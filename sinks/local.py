"""The folder or file that a URI without a server names: ``bulk:DIR``, ``npy:DIR``."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError


def local_path(uri: str, example: str) -> Path:
    """What stands behind the colon of ``scheme:PATH``.

    Args:
        uri: what the user wrote.
        example: of a path, for the message.

    Raises:
        ConfigError: it names none.
    """
    scheme, _, rest = uri.partition(":")
    if rest.startswith("//"):
        raise ConfigError(f"uri: write {scheme}:FOLDER, not {uri!r}: it is a folder here, and no address")
    path = Path(os.path.expanduser(rest))  # noqa: PTH111  (no shell does it after a colon; Path's fails on ~nobody)
    if not path.name:
        raise ConfigError(f"uri: {uri!r} names no folder; as in {scheme}:{example}")
    return path
