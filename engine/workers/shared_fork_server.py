"""The shared fork server: one for all pools of this process, for as long as anybody needs it.

It has imported JAX (0.5 s), so a worker forked from it starts in milliseconds. No JAX backend is ever started in it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

from ...preprocess.worker.jax_runtime import worker_environment
from ...shm import Zygote

PRELOAD = ("jax", "jax.numpy", "PIL.Image", "penstock.preprocess.worker.worker")
"""What it imports. None of it starts a thread or a JAX backend."""


class _Shared:
    """The fork server, and how many use it. A fork of the host has to make its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner = 0
        self.users = 0
        self.zygote: Zygote | None = None


_shared = _Shared()


def acquire_fork_server() -> Zygote:
    """The fork server, starting (it imports while you go on). Pair with ``release_fork_server``.

    Raises:
        WorkerStartError: the interpreter cannot be executed.
    """
    with _shared.lock:
        if _shared.zygote is None or _shared.owner != os.getpid():
            _shared.zygote, _shared.owner, _shared.users = Zygote(PRELOAD, worker_environment()), os.getpid(), 0
        _shared.zygote.start()
        _shared.users += 1
        return _shared.zygote


def release_fork_server(zygote: Zygote) -> None:
    """Done with it; the last one to say so ends it."""
    with _shared.lock:
        if zygote is not _shared.zygote or _shared.owner != os.getpid():
            return
        _shared.users -= 1
        if _shared.users:
            return
        _shared.zygote = None
    zygote.close()


@contextmanager
def warm_start() -> Generator[None]:
    """Keep the fork server while the block runs, so that each pool made in it starts without importing JAX again.

    For programs that make one pool after another; a pool that is itself kept is warmer still.
    """
    zygote = acquire_fork_server()
    try:
        yield
    finally:
        release_fork_server(zygote)
