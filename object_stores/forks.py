"""The client library and forks: a child of a process that has made requests would wait for ever in its first one."""

from __future__ import annotations

import os

from ..errors import ObjectStoreError

_used = False
_inherited = False


def requested() -> None:
    """A request is about to be made in this process.

    Raises:
        ObjectStoreError: the process was forked off one that had made requests.
    """
    global _used  # noqa: PLW0603
    if _inherited:
        raise ObjectStoreError(
            "this process was forked from one that had used an object store, and cannot use one: start it by spawn or "
            "forkserver, or fork before the first request"
        )
    _used = True


def _in_child() -> None:
    global _inherited  # noqa: PLW0603
    _inherited = _inherited or _used


os.register_at_fork(after_in_child=_in_child)
