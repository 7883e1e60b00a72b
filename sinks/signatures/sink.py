"""``signatures:DIR``: rows of the embedder ``signature`` as parts of signatures; what `penstock dedup` writes into."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...durable import write_text
from ...errors import ConfigError, SinkError
from ...preprocess.pdq import INFORMATIVE
from ...preprocess.signature import DIGEST, Tail, unpacked
from ..base import Found, Sink
from ..rows import RowBatch, WriteResult, need_dimension, screen
from .columns import Signatures
from .files import SignatureWriter, key_hash, parts_in, read_signatures

_NOTE: Final = "note.json"

_WRITES: Final = 4
"""Times what was asked for: a part is a file, and many files are slow; what a kill costs is one part."""


class SignatureSink(Sink):
    """Each write is a part. Items are known by their paths, where they have one; of a key that comes again the last
    counts.

    Args:
        folder: made with the first rows.
        dimension: of a row, with what is packed behind its vector; None: any.
        note: what the rows are made by.
    """

    has_collections = False
    keeps_collection_name = True

    def __init__(self, folder: Path, dimension: int | None = None, note: str = "") -> None:
        self._folder, self._dimension, self._new_note = folder.absolute(), dimension, note
        self._note = ""
        self._writer: SignatureWriter | None = None
        self._mutex = threading.Lock()
        self._next = 0

    @property
    def threads(self) -> int:
        return 1

    @property
    def uri(self) -> str:
        return f"signatures:{self._folder}"

    @property
    def fingerprint(self) -> str:
        return "signatures"  # they lie in the job's own folder, which may be moved

    def rows_per_write(self, asked: int) -> int:
        return _WRITES * asked

    def look(self) -> Found | None:
        note = self._folder / _NOTE
        return Found(self._rows(), note.read_text()) if note.exists() else None

    @property
    def note(self) -> str:
        return self._note

    def open(self) -> None:
        """Make the folder, or go on in it.

        Raises:
            ConfigError: the rows come from another embedder.
        """
        if self._new_note and json.loads(self._new_note).get("embedder") != "signature":
            raise ConfigError(f"{self.uri} takes rows of the embedder signature alone; penstock dedup makes them")
        self._writer = SignatureWriter(self._folder)
        note = self._folder / _NOTE
        if not note.exists():
            write_text(note, self._new_note)
        self._note = note.read_text()
        parts = parts_in(self._folder)
        self._next = int(parts[-1].name.split(".")[0]) + 1 if parts else 0

    def write(self, rows: RowBatch) -> WriteResult:
        """One part with all rows that fit.

        Raises:
            CollectionMismatchError: rows of another dimension.
            SinkError: it is not open.
        """
        if self._writer is None:
            raise SinkError(f"{self.uri}: the sink is not open; call open() first")
        need_dimension(rows, self._dimension, self.uri)
        screened = screen(rows)
        if screened.kept:
            kept = screened.kept
            vectors, tail = unpacked(rows.vectors[kept])
            columns = [rows.columns[row] for row in kept]
            signatures = Signatures.of(
                [str(each.get("path", rows.keys[row])) for row, each in zip(kept, columns, strict=True)],
                vectors,
                short_side=np.array([min(each.get("width", 0), each.get("height", 0)) for each in columns]),
                quality=tail.quality,
                sharpness=tail.sharpness,
                pdq=tail.pdq,
                digest=_contents(tail, [each.get("path") for each in columns]),
            )
            with self._mutex:
                self._writer.write(f"{self._next:012}", signatures)
                self._next += 1
        return screened.result(())

    def count(self) -> int:
        return self._rows()

    def _rows(self) -> int:
        """Different keys."""
        hashes = (key_hash(key) for part in parts_in(self._folder) for key in read_signatures(part).keys)
        return len(np.unique(np.fromiter(hashes, np.uint64)))

    def close(self) -> None:
        self._writer = None


def _contents(tail: Tail, paths: Sequence[str | None]) -> NDArray[np.uint8]:
    """Digests of contents, uint8 ``[n, 16]``: of the 64 x 64 pixels.

    Those of a flat picture are no evidence: there may have been more in it than they can show. So there it is the
    file's, if that is one of this machine.
    """
    found = tail.digest.copy()
    for row in np.flatnonzero(tail.quality < INFORMATIVE).tolist():
        found[row] = np.frombuffer(_file_digest(paths[row]), np.uint8)
    return found


def _file_digest(path: str | None) -> bytes:
    """Of the bytes of a file; zeros where there is none to read."""
    try:
        if path is not None and Path(path).is_file():
            with open(path, "rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST)).digest()
    except (OSError, ValueError):
        pass  # what cannot be read again is compared as all others are
    return bytes(DIGEST)
