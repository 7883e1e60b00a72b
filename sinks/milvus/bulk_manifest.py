"""The manifest of a folder for bulk import: what is in it, for those who did not write it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...durable import put
from ...errors import ConfigError

SCHEME = "bulk:"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished folder holds."""

    collection: str
    dimension: int
    note: str
    """What the vectors are made by."""
    fields: dict[str, str]
    partition_key: str | None
    rows: int
    parts: list[dict[str, Any]]
    """Of each: name, rows, bytes, sha256."""
    nulls: dict[str, int]
    """Of each typed field: rows without a value."""


def is_finished(folder: str | os.PathLike[str]) -> bool:
    """Whether the parts of a folder are merged and are what its manifest says: there is nothing left to do in it."""
    if not (Path(folder) / MANIFEST).exists():
        return False
    manifest = read_manifest(folder)
    return complete_parts(Path(folder), manifest) == manifest.parts


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a finished folder.

    Raises:
        ConfigError: there is none: no such folder, or the job in it has not ended.
    """
    path = Path(folder) / MANIFEST
    try:
        return Manifest(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        why = f"{MANIFEST}: {error.strerror if isinstance(error, OSError) else error}"
        if isinstance(error, FileNotFoundError):
            why = f"it has no {MANIFEST}" if path.parent.is_dir() else "there is no such folder"
        raise ConfigError(
            f"{os.fspath(folder)!r} is no finished bulk folder: {why}; penstock embed ... --to"
            f" {SCHEME}DIR makes one, and finishes one whose job was killed when it is run again"
        ) from error


def complete_parts(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """Those parts of a manifest that are there, by their sizes."""
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
    return [part for part in manifest.parts if sizes.get(part["name"]) == part["bytes"]]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Say what a folder holds; it is finished then.

    Raises:
        OSError: the disk refuses.
    """
    unfinished = folder / (MANIFEST + ".unfinished")
    unfinished.write_text(json.dumps(asdict(manifest), indent=1))
    put(unfinished, folder / MANIFEST)
