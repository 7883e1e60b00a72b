"""A place of pictures that is read by reference: a folder, whose fetcher can be told by a ref to go wrong."""

from __future__ import annotations

from pathlib import Path

from penstock.errors import ReadError
from penstock.references import Locator, Reference, Version


class FolderFetcher:
    """Reads a file by its name; checks the version as an object store does with If-Match."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def read(self, ref: str, version: Version, max_bytes: int) -> bytes:
        """See `Fetcher`."""
        del max_bytes
        if ref == "slow down":
            raise TimeoutError("no answer from https://user:secret@store/bucket")
        data = (self._folder / ref).read_bytes()
        if version.tag and version.tag != str(len(data)):
            raise ReadError(f"{ref!r} has changed since it was listed")
        return data


def open_folder(options: str) -> FolderFetcher:
    """What locators name."""
    return FolderFetcher(options)


def reference(folder: Path, ref: str, *version: object) -> Reference:
    """To a file of the folder."""
    return Reference(Locator("penstock.tests.folder_place:open_folder", str(folder)), ref, Version(*version))  # type: ignore[arg-type]
