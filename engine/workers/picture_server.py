"""The fork server of workers that preprocess pictures. Imports nothing large, so that it starts before anything is.

It has imported JAX (0.5 s), so a worker forked from it starts in milliseconds. No JAX backend is ever started in it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from ...preprocess.worker.jax_runtime import worker_environment
from .shared_fork_server import SharedForkServer

PRELOAD = ("jax", "jax.numpy", "PIL.Image", "penstock.preprocess.worker.worker")

PICTURE_SERVER = SharedForkServer(PRELOAD, worker_environment)


def warm_start() -> AbstractContextManager[None]:
    """Keep the fork server while the block runs, so that each pool made in it starts without importing JAX again.

    For programs that make one pool after another; a pool that is itself kept is warmer still.
    """
    return PICTURE_SERVER.warm()
