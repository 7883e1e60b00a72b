"""A server below its guardian, as seen by the process that started it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ...errors import ServerError, ServerUnavailableError

_HERE = Path(__file__).parent
_TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server."""

    argv: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    """Where it runs."""


class Guarded:
    """A server process with a folder of its own. All of it ends with `close`, or with this process, however it ends.

    Args:
        name: what it is called in messages and in the folder's name.
        shm_prefix: what the names of the server's own files in /dev/shm begin with; they are removed behind it.
        private_shm: give it a /dev/shm that nobody else sees. Needs root.
        inner_ports: run it in a network of its own, where it listens on these; `ports` are relayed to them. Needs root.

    Raises:
        ServerUnavailableError: this process may not make namespaces.
    """

    def __init__(
        self, name: str, *, shm_prefix: str = "", private_shm: bool = False, inner_ports: Sequence[int] = ()
    ) -> None:
        self.name = name
        self.shm_prefix = shm_prefix
        self.folder = Path(tempfile.mkdtemp(prefix=f"penstock-{name}-"))
        self.log = self.folder / "server.log"
        self._mutex = threading.Lock()
        python = [sys.executable, "-I", "-S"]
        # Its own session: the terminal's Ctrl-C is for us, and we end it.
        self._process = subprocess.Popen(
            [*python, str(_HERE / "guardian.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        settings = {
            "parent": os.getpid(),
            "remove": [str(self.folder)],
            "shm_prefix": shm_prefix,
            "private_shm": private_shm,
            "relays": [[*python, str(_HERE / "relay.py"), str(port)] for port in inner_ports],
        }
        try:
            self.ports: list[int] = self._ask(settings)["ports"]
        except ServerError as error:
            self.close()
            raise ServerUnavailableError(f"{name} needs a namespace of its own, and root to make it: {error}") from None

    def start(self, command: Command) -> int:
        """Start the server, after killing what runs of it; returns its pid."""
        order = {"do": "start", "argv": list(command.argv), "env": dict(command.env), "cwd": str(command.folder)}
        return int(self._ask({**order, "log": str(self.log)})["pid"])

    def alive(self) -> bool:
        """Whether it has not ended (it may be stopped, or not be ready)."""
        return self._ask({"do": "look"})["status"] is None

    def signal(self, number: int) -> None:
        """To the server and to every process below it."""
        self._ask({"do": "signal", "number": int(number)})

    def kill(self) -> None:
        """SIGKILL for all of it; returns when they are gone."""
        self._ask({"do": "kill"})

    def tail(self) -> str:
        """The end of its log, without the tables that Triton draws."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        said = [line for line in lines if line.strip() and not line.startswith(("|", "+"))]
        return "\n".join(said[-_TAIL_LINES:]) or "(it said nothing)"

    def close(self) -> None:
        """End the server and its guardian, remove its folder. Idempotent."""
        with self._mutex:
            for pipe in (self._process.stdin, self._process.stdout):
                cast("IO[bytes]", pipe).close()
            if self._process.returncode is None:
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
                # A guardian that was killed takes the server along, but not what is below that. Not yet waited for, it
                # keeps its number, which is that of their group.
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)  # already done, unless the guardian was killed itself

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        with self._mutex:
            stdin, stdout = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
            if stdin.closed:
                raise ServerError(f"{self.name} has been closed")
            try:
                stdin.write(json.dumps(order).encode() + b"\n")
                line = stdout.readline()
            except BrokenPipeError:
                line = b""
        if not line:
            raise ServerError(f"the guardian of {self.name} has died")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServerError(str(answer["error"]))
        return answer
