"""File systems of a test's own: small ones, that fill up, shrink and are read-only, seen by nobody else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_USER = () if os.geteuid() == 0 else ("--user",)


class Mounts:
    """A mount namespace, alive for as long as its holder: a process that does nothing.

    Args:
        holder: its process id.
    """

    def __init__(self, holder: int) -> None:
        self._holder = holder

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command there."""
        user = [*_USER, "--preserve-credentials"] if _USER else []
        return ["nsenter", "--target", str(self._holder), *user, "--mount", "--", *command]

    def run(self, *command: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        return subprocess.run(self.inside(command), capture_output=True, text=True, timeout=timeout, check=False)

    def tmpfs(self, place: Path | str, size: str) -> None:
        """Put an empty file system of a size (``4m``) there."""
        self._must("mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", str(place))

    def remount(self, place: Path | str, options: str) -> None:
        """Change it: ``size=1m``, ``ro``."""
        self._must("mount", "-o", f"remount,{options}", str(place))

    def see(self, path: Path | str) -> Path:
        """A file or folder of the namespace, as it can be reached from here."""
        return Path(f"/proc/{self._holder}/root{path}")

    def _must(self, *command: str) -> None:
        done = self.run(*command)
        assert done.returncode == 0, done.stderr


@contextmanager
def mounts() -> Generator[Mounts]:
    """A mount namespace for the time of the block. Where none can be had the test is skipped; in CI it fails."""
    user = ("--user", "--map-root-user") if _USER else ()
    command = ["unshare", *user, "--mount", "--propagation", "private", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            holder.stdin.write(b"in\n")
            holder.stdin.flush()
            if holder.stdout.readline() != b"in\n":
                why = f"no mount namespace can be had here: {holder.stderr.read().decode()}"
                if os.environ.get("CI"):
                    pytest.fail(why)
                pytest.skip(why)
            yield Mounts(holder.pid)
        finally:
            holder.kill()
