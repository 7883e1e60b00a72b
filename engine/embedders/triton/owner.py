"""Names of regions that say whose they are, so that those of dead owners can be told from those of the living."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from .processes import started

_NAME: Final = re.compile(r"penstock-(?P<host>[0-9a-f]{16})-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]+-\d+")


@dataclass(frozen=True, slots=True)
class Owner:
    """One run of an embedder, as a server's list of regions shows it.

    Attributes:
        host: digest of this boot, this namespace of process ids and this user: where `pid` means something.
        pid: of the process.
        started: when it started, in clock ticks since boot: pids are used again.
        token: tells the runs of one process apart; nobody can guess it.
    """

    host: str
    pid: int
    started: int
    token: str

    @classmethod
    def current(cls) -> Self:
        """A new owner: this process."""
        return cls(_host(), os.getpid(), started(os.getpid()) or 0, secrets.token_hex(8))

    def region(self, number: int) -> str:
        """Name of this owner's so-manieth region."""
        return f"penstock-{self.host}-{self.pid}-{self.started}-{self.token}-{number}"


def abandoned(regions: list[str]) -> list[str]:
    """Those regions whose owner was of this host and this user, and is dead."""
    here = _host()
    found = ((region, _NAME.fullmatch(region)) for region in regions)
    ours = ((region, match) for region, match in found if match and match["host"] == here)
    return [region for region, match in ours if started(int(match["pid"])) != int(match["started"])]


def _host() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  (not the path of anything)
    # The user: where /proc hides the processes of others, they would all look dead.
    return hashlib.blake2b(f"{boot} {namespace} {os.geteuid()}".encode(), digest_size=8).hexdigest()
