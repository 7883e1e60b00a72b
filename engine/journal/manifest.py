"""``job.json``: what a job is, for people and for the check that a later run is the same job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

from ...errors import JournalDamagedError
from .blocks import FORMAT, check_format
from .disk import Disk, read_file, replace_file, shut


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it was when the job began.

    Attributes:
        name: of the fingerprint: ``source``, ``preprocess``, ``embedder``, ``sink``.
        there: in the job folder; None: not recorded.
        here: now; None: not given.
    """

    name: str
    there: str | None
    here: str | None


@dataclass(frozen=True, slots=True)
class JobManifest:
    """What ``job.json`` says.

    Attributes:
        job: id, the same for ever.
        created: UTC, ISO 8601.
        fingerprints: by name; what may not change between runs.
        settings: shown to people; JSON values, no secrets.
    """

    job: str = field(default_factory=lambda: uuid4().hex)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    fingerprints: Mapping[str, str] = field(default_factory=dict[str, str])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def differences(self, fingerprints: Mapping[str, str]) -> list[Difference]:
        """What differs from these, by name; nothing if none were recorded yet."""
        if not self.fingerprints:
            return []
        names = sorted({*self.fingerprints, *fingerprints})
        pairs = ((name, self.fingerprints.get(name), fingerprints.get(name)) for name in names)
        return [Difference(name, there, here) for name, there, here in pairs if there != here]


def read_manifest(disk: Disk, path: str) -> JobManifest:
    """The manifest of a job.

    Raises:
        OSError: it cannot be read.
        JournalDamagedError: it is not a manifest.
        JournalVersionError: it has another format.
    """
    wrong = JournalDamagedError(f"{path}: is damaged; restore it from a backup or start a new job folder")
    try:
        content: Any = json.loads(read_file(disk, path))
    except ValueError as error:
        raise wrong from error
    if not isinstance(content, dict):
        raise wrong
    facts = cast("dict[str, Any]", content)
    check_format(path, facts.pop("format", None))
    try:
        return JobManifest(**facts)
    except TypeError as error:
        raise wrong from error


def write_manifest(disk: Disk, path: str, manifest: JobManifest) -> None:
    """Replace the manifest, whole or not at all; durable after `Disk.sync_folder`.

    Raises:
        JournalDiskError: the disk refused; the old manifest stays.
        TypeError: settings that are not JSON.
    """
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n"
    shut(disk, replace_file(disk, path, [text.encode()]))
