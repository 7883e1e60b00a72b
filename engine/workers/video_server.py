"""The fork server of workers that decode videos: it has imported JAX, so that a worker starts in milliseconds."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ...preprocess.worker.jax_runtime import worker_environment
from .shared_fork_server import SharedForkServer

PRELOAD = ("jax", "jax.numpy", "penstock.preprocess.worker.videos")

VIDEO_SERVER = SharedForkServer(PRELOAD, worker_environment)


def warm_start() -> AbstractContextManager[None]:
    """Keep the fork server while the block runs; see ``picture_server.warm_start``."""
    return VIDEO_SERVER.warm()
