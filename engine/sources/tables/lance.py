"""Lance tables: folders whose fragments are files of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final

from ....errors import ReadError, SourceError
from ....object_stores.urls import is_store_url
from ..containers import changed
from .base import TableFile, TableFormat, library

_MARK: Final = "#"
"""Between a folder and the number of a fragment."""

_GROUP_ROWS: Final = 256
"""Rows of a scan. A scan may begin at any row."""

_BUFFER: Final = 16 << 20
"""Bytes that a scan reads ahead; by default 2 GiB."""


class LanceFragment(TableFile):
    """A fragment of a Lance table, with the rows that are not deleted; its groups are so many rows each.

    Args:
        name: ``/path/of.lance#000003``.
    """

    def __init__(self, name: str) -> None:
        folder, _, number = name.rpartition(_MARK)
        dataset = _dataset(folder)
        self._fragment: Any = dataset.get_fragment(int(number))
        if self._fragment is None:
            raise ReadError(f"has no fragment {int(number)} any more")
        said = json.dumps(self._fragment.metadata.to_json(), sort_keys=True)  # files are never written again
        self.token = blake2b(said.encode(), digest_size=8).hexdigest()
        self.schema = dataset.schema
        rows = self._fragment.count_rows()
        self.groups = [min(_GROUP_ROWS, rows - first) for first in range(0, rows, _GROUP_ROWS)]

    def batches(self, group: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """A scan of them. Columns of blobs are read as bytes."""
        found: Iterator[Any] = self._fragment.to_batches(
            columns=[*columns],
            batch_size=rows,
            offset=group * _GROUP_ROWS,
            limit=self.groups[group],
            batch_readahead=1,
            io_buffer_size=_BUFFER,
            blob_handling="all_binary",
        )
        return found

    def close(self) -> None:
        """Idempotent."""
        self._fragment = None


class LanceFormat(TableFormat):
    """``lance:``."""

    needs = "lance", "lance"
    unit = "a page of the table"

    def check(self, place: str) -> None:
        """Of this machine alone: the library would look for credentials by itself, also where there must be none."""
        if is_store_url(place):
            raise SourceError(f"{place!r}: Lance tables are read from folders of this machine")
        super().check(place)

    def names(self, place: str, mark: str) -> Sequence[str]:
        """The fragments of each table, as they are numbered."""
        return [
            f"{folder}{_MARK}{fragment.fragment_id:06}"
            for folder in super().names(place, mark)
            for fragment in sorted(_dataset(folder).get_fragments(), key=lambda fragment: int(fragment.fragment_id))
        ]

    def open(self, name: str, token: str = "") -> TableFile:
        """A fragment."""
        found = LanceFragment(name)
        if token not in ("", found.token):
            raise changed(name)
        return found


def _dataset(folder: str) -> Any:
    return library("lance", "lance").dataset(folder)
