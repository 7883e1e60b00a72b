"""What a URL of a store stands for: an object, all below a folder, or what matches a glob."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ...errors import ObjectNameError
from ...object_stores import ObjectInfo, ObjectStore, StoreURL
from .selection import ALL, Selection

_GLOB: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Place:
    """One spec.

    Attributes:
        url: as it was given.
        folder: what is listed: a prefix of whole parts, without a slash at the end.
        wanted: which of the keys below the folder.
        is_glob: whether it was given as one.
    """

    url: StoreURL
    folder: str
    wanted: Selection
    is_glob: bool

    @classmethod
    def of(cls, spec: str) -> Place:
        """Of ``s3://bucket``, ``s3://bucket/folder``, ``s3://bucket/a/b.jpg``, ``s3://bucket/vol_*/``...

        Raises:
            ConfigError: it is no URL of a store, or no glob.
        """
        url = StoreURL.parse(spec)
        glob = _GLOB.search(url.key)
        if glob is None:
            return cls(url, url.key.rstrip("/"), ALL, False)
        folder, _, rest = url.key[: glob.start()].rpartition("/")
        pattern = "/" + rest + url.key[glob.start() :]
        return cls(url, folder, Selection(include=(pattern,)), True)

    @property
    def may_be_object(self) -> bool:
        """Whether it may name an object, besides a folder."""
        return bool(self.url.key) and not self.is_glob and not self.url.key.endswith("/")

    def below(self, key: str) -> str:
        """A key's path below the folder."""
        return key[len(self.folder) + 1 :] if self.folder else key

    def covers(self, bucket: str, key: str) -> bool:
        """Whether it stands for this object, among others."""
        if bucket != self.url.bucket:
            return False
        if key == self.url.key and self.may_be_object:
            return True
        if self.folder and not key.startswith(self.folder + "/"):
            return False
        return not self.is_glob or not self.wanted.leaves_out(self.below(key))

    def listed(self, store: ObjectStore) -> Iterator[ObjectInfo]:
        """All objects in the folder, as the store lists them; of a glob those that match it.

        Raises:
            ObjectStoreError: the store refuses.
        """
        found = _listed(store, self.folder)
        if not self.is_glob:
            return found
        return (one for one in found if not self.wanted.leaves_out(self.below(one.key)))


def _listed(store: ObjectStore, folder: str) -> Iterator[ObjectInfo]:
    """The objects in a folder. Where one has a name that obstore cannot list, all that follow are listed plainly.

    Raises:
        ObjectStoreError: the store refuses.
    """
    passed = 0
    try:
        for found in store.list(folder):
            passed += 1
            yield found
    except ObjectNameError:
        if store.url.scheme != "s3":
            raise
        # The same listing from its beginning: not every store can begin in the middle. Pages are cheap.
        prefix = folder + "/" if folder else ""
        again = (found for found in store.list_plainly(prefix) if found.key != prefix)  # as obstore leaves it out
        yield from islice(again, passed, None)
