"""Who has what a job left in an object store: an object that its owner writes anew every few minutes."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psutil

from ...errors import ObjectChangedError, ObjectExistsError, ObjectNotFoundError, ObjectStoreError, SinkError
from ...object_stores.store import ObjectStore

LEASE, BEAT = 3600.0, 600.0
"""Seconds after which an owner that has said nothing is dead, and between two signs of life."""

_MOST: Final = 2**16
_CLEANER: Final = "cleaner"


class Lease:
    """The sign of life of the owner of a job's leftovers, while it is held.

    It is written under the condition that nobody else has written it, so whoever has lost it learns that. Clocks of
    this machine and of the store may differ by less than `LEASE` - `BEAT`.

    Args:
        store: where.
        key: of the sign.
        owner: ``writer``, the job itself, or ``cleaner``.

    Raises:
        SinkError: a cleaner is at it; or the store takes no heed of If-None-Match.
    """

    def __init__(self, store: ObjectStore, key: str, owner: str = "writer") -> None:
        self._store, self._key = store, key
        self._said = {"owner": owner, "id": uuid4().hex, **_here()}
        self._lost = False
        self._ended = threading.Event()
        self._etag = self._begin()
        self._beating = threading.Thread(target=self._beat, name="penstock-lease", daemon=True)
        self._beating.start()

    def check(self) -> None:
        """See that it is still held.

        Raises:
            SinkError: another process has taken it over.
        """
        if self._lost or said_at(self._store, self._key)[0].get("id") != self._said["id"]:
            self._lost = True
            raise SinkError(f"{self._store.where(self._key)}: another process has taken over what this job had there")

    def close(self) -> None:
        """Let go. Idempotent."""
        if not self._ended.is_set():
            self._ended.set()
            self._beating.join()
            with suppress(ObjectStoreError):  # else it is found to be dead later
                if said_at(self._store, self._key)[0].get("id") == self._said["id"]:
                    self._store.delete(self._key)

    def _begin(self) -> str:
        said, etag, _ = said_at(self._store, self._key)
        if said.get("owner") == _CLEANER and is_live(self._store, self._key):
            raise SinkError(f"{self._store.where(self._key)}: what this job had there is being cleaned away")
        try:
            etag = (
                self._store.put(self._key, self._data, etag=etag)
                if etag
                else self._store.put(self._key, self._data, new=True)
            )
            self._store.put(self._key, self._data, new=True)
        except ObjectExistsError as error:
            if said_at(self._store, self._key)[0].get("id") == self._said["id"]:
                return etag  # as it must be
            raise SinkError(f"{self._store.where(self._key)}: another process has just taken this job") from error
        except ObjectChangedError as error:
            raise SinkError(f"{self._store.where(self._key)}: another process has just taken this job") from error
        self._store.delete(self._key)
        raise SinkError(
            f"{self._store.url}: takes no heed of If-None-Match, so two jobs could publish in one place: use another"
            " store, or a folder"
        )

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                self._etag = self._store.put(self._key, self._data, etag=self._etag)
            except (ObjectChangedError, ObjectNotFoundError):
                self._lost = True
                return
            except ObjectStoreError:  # it does not answer: there is time for another beat
                continue

    @property
    def _data(self) -> bytes:
        return json.dumps({**self._said, "at": time.time()}).encode()


def said_at(store: ObjectStore, key: str) -> tuple[Mapping[str, Any], str, int]:
    """What the owner says, the etag, and when it was said in ns since 1970; nothing where there is none."""
    try:
        found = store.head(key)
        said: Mapping[str, Any] = json.loads(store.get(key, max_bytes=_MOST, etag=found.etag))
    except (ObjectNotFoundError, ObjectChangedError):
        return {}, "", 0
    return said, found.etag, found.modified_ns


def is_live(store: ObjectStore, key: str) -> bool:
    """Whether somebody has it: said so within `LEASE`, and is not a process of this machine that is dead."""
    said, _, modified_ns = said_at(store, key)
    if not said or time.time() - modified_ns / 1e9 > LEASE:
        return False
    here = _here()
    if said.get("machine") != here["machine"]:
        return True
    with suppress(psutil.Error):
        return bool(psutil.Process(said["pid"]).create_time() == said["began"])
    return False


def _here() -> dict[str, Any]:
    """This process, and the machine, container included, in which its number means it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    machine = f"{socket.gethostname()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116  (no Path: a magic link)
    return {"machine": machine, "pid": os.getpid(), "began": psutil.Process().create_time()}
