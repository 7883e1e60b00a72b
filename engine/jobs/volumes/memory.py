"""How much memory a job on volumes takes at most: room for files and for decoded pages, and what is there besides."""

from __future__ import annotations

import threading
from typing import Final

from ....errors import ConfigError
from ....formatting import size
from ....preprocess import PreprocessSpec
from ...config.volumes import PipelineConfig
from ..common.memory_estimate import MemoryEstimate, Part
from ..common.plan import Plan
from .pages import ImageTask

_MIB: Final = 2**20

_BASE: Final = 620 * _MIB
"""Interpreter, engine, JAX with its compiled programs, OpenCV, SciPy, pyarrow and clients of stores (measured: 420-500
MiB), with a quarter on top."""

_PUBLISHING: Final = 160 * _MIB
"""Rows of a volume that are put in order."""

_ROOM: Final = 1024 * _MIB
"""For decoded pages, where the user says nothing."""

_LEAST: Final = 32 * _MIB

_AT_ONCE: Final = 2
"""Pictures of its size that a page takes while it is decoded, and while it is straightened; and once it has been."""


class Room:
    """Bytes that pages may take at once. What is larger than all of it waits until it is alone. For threads.

    Args:
        nbytes: of all pages together.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._free = threading.Condition()
        self._held: dict[ImageTask, int] = {}
        self._taken = self._waiting = 0
        self._closed = False

    @property
    def taken(self) -> int:
        """Bytes that are taken now."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Pages that wait for room now."""
        return self._waiting

    def take(self, task: ImageTask, nbytes: int) -> None:
        """Wait until there is room for so many bytes of a page, and have them until `give`. Once for each page."""
        with self._free:
            self._waiting += 1
            self._free.wait_for(lambda: self._closed or not self._taken or self._taken + nbytes <= self.nbytes)
            self._waiting -= 1
            self._put(task, nbytes)

    def resize(self, task: ImageTask, nbytes: int) -> None:
        """They turned out to be so many; does not wait."""
        with self._free:
            self._put(task, nbytes)
            self._free.notify_all()

    def give(self, task: ImageTask) -> None:
        """The page takes nothing any more. It need not have taken any."""
        with self._free:
            self._taken -= self._held.pop(_key(task), 0)
            self._free.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._free:
            self._closed = True
            self._free.notify_all()

    def _put(self, task: ImageTask, nbytes: int) -> None:
        self._taken += nbytes - self._held.get(_key(task), 0)
        self._held[_key(task)] = nbytes


def room_for_pages(cfg: PipelineConfig, plan: Plan) -> int:
    """Bytes that decoded pages may take at once, by `memory`.

    Raises:
        ConfigError: with all else there is none left; says how much is needed.
    """
    if cfg.memory is None:
        return _ROOM
    besides = _estimate(cfg, plan, 0).total
    if cfg.memory < besides + _LEAST:
        raise ConfigError(
            f"memory: {size(cfg.memory)} are too little: at least {size(besides + _LEAST)} are needed; lower max_pixels"
            " (--max-pixels), decode_threads (--decode-threads) or fetch_queue_bytes, or allow more"
        )
    return cfg.memory - besides


def estimate_volumes(cfg: PipelineConfig, plan: Plan) -> MemoryEstimate:
    """The most memory that a job on volumes takes.

    Raises:
        ConfigError: `memory` is too little.
    """
    return _estimate(cfg, plan, room_for_pages(cfg, plan))


def nbytes_of(pixels: int) -> int:
    """Bytes that a decoded page counts for, by its pixels' bytes: as scanned, and straightened."""
    return _AT_ONCE * pixels


def _estimate(cfg: PipelineConfig, plan: Plan, room: int) -> MemoryEstimate:
    page = 3 * (cfg.max_pixels or PreprocessSpec().max_pixels)
    model = plan.embedder.memory(plan.spec, cfg.batch_size)
    batches = (cfg.compute_threads + 3) * cfg.batch_size * 4 * 512 * 512
    parts = [
        Part("parent", _BASE, "parent"),
        Part("files", cfg.fetch_queue_bytes, "parent"),
        Part("page on the way", _AT_ONCE * page, "parent", 2 * cfg.decode_threads),
        *([Part("pages", room, "parent")] if room else []),
        Part("batches", batches, "parent"),
        Part("publishing", _PUBLISHING, "parent"),
        *([Part("model", model, "parent")] if model is not None else []),
    ]
    uncounted = ["files whose size no listing says"]
    if model is None:
        uncounted.append(f"what {plan.embedder.name} takes")
    return MemoryEstimate(tuple(parts), tuple(uncounted), cfg.memory, {})


def _key(task: ImageTask) -> ImageTask:
    """The same for a page whatever has been found out about it."""
    return ImageTask(task.key, volume_id=task.volume_id, page=task.page, ordinal=task.ordinal)
