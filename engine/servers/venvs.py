"""Cached virtual environments for servers, whose requirements do not go together with penstock's own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...errors import ServerUnavailableError

_STAMP = ".ready"
_DEBIAN_PYTHON = Path("/usr/bin/python3.11")


def servers_folder() -> Path:
    """Where they are kept: ``$PENSTOCK_SERVERS``, else ``penstock/servers`` below the user's cache folder."""
    if given := os.environ.get("PENSTOCK_SERVERS"):
        return Path(given).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # the XDG specification: to be ignored
        cache = Path.home() / ".cache"
    return cache / "penstock" / "servers"


def server_python() -> str:
    """The interpreter for servers' environments.

    Triton's python backend embeds the *system's* libpython, which wants the standard library of the same build: with a
    pyenv 3.11.7 under Debian's 3.11.2 a model that used multiprocessing died.
    """
    if _DEBIAN_PYTHON.exists() and _run([str(_DEBIAN_PYTHON), "-c", "import venv, ensurepip"]).returncode == 0:
        return str(_DEBIAN_PYTHON)
    return getattr(sys, "_base_executable", sys.executable)


def server_venv(
    name: str,
    requirements: Sequence[str],
    *,
    alone: Sequence[str] = (),
    python: str | None = None,
    finish: Callable[[Path], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """The environment with these requirements, made at the first call. Safe to call from several processes at once.

    Args:
        name: first part of the folder's name.
        requirements: as for pip, with what they need.
        alone: requirements to install without what they say they need.
        python: the interpreter; None for `server_python`.
        finish: called with the folder when pip is done, for what else belongs into it.
        say: is told what takes time.

    Raises:
        ServerUnavailableError: it cannot be made here; the message ends with pip's.
    """
    python = python or server_python()
    key = "\n".join([python, _version(python), *requirements, "--", *alone])
    folder = servers_folder() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(folder.name + ".lock")):
            if not (folder / _STAMP).exists():
                shutil.rmtree(folder, ignore_errors=True)  # half made by somebody who was killed
                _make(folder, python, requirements, alone, say or (lambda _: None))
                if finish is not None:
                    finish(folder)
                (folder / _STAMP).touch()
    except OSError as error:
        raise ServerUnavailableError(
            f"cannot make {folder} ({error}); set PENSTOCK_SERVERS to another place"
        ) from error
    return folder


def site_packages(venv: Path) -> Path:
    """Where its packages are.

    Raises:
        ServerUnavailableError: it has none.
    """
    for found in venv.glob("lib/python3.*/site-packages"):
        return found
    raise ServerUnavailableError(f"{venv} has no site-packages: delete it, it will be made anew")


def _make(
    folder: Path, python: str, requirements: Sequence[str], alone: Sequence[str], say: Callable[[str], None]
) -> None:
    say(f"making {folder}")
    _must([python, "-m", "venv", *(() if requirements or alone else ("--without-pip",)), str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    for options, wanted in ((("--no-deps",), alone), ((), requirements)):
        if wanted:
            say(f"installing {', '.join(wanted)}")
            _must([*pip, *options, *wanted])


@contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _version(python: str) -> str:
    return _must([python, "-c", "import sys; print(sys.version)"])


def _must(argv: list[str]) -> str:
    done = _run(argv)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise ServerUnavailableError(f"{' '.join(argv)} failed with status {done.returncode}:\n{said}")
    return done.stdout


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    # A PYTHONPATH or an active environment of ours must not reach into it.
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    try:
        return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(argv, 127, "", str(error))
