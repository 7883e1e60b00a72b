"""Near-duplicates across videos: rows are held back until all are there, then those that stay go to the stores.

The rows of all frames lie in a data set of the job's own meanwhile. When the last video is done it is decided which
frames go, as a function of the set of them alone; the others are copied into the stores, again if need be.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ....durable import TEMPORARY, write_text
from ....preprocess.pdq import INFORMATIVE
from ....sinks import Found, RowBatch, Sink, SinkOptions, make_sink
from ....sinks.signatures import Signatures, SignatureWriter, parts_in
from ...config.videos import FRAME_FIELDS, VideoConfig
from ...dedup import Decision, Duplicate, Rule, decide
from ...journal import job_id
from ...sources.frame_keys import frame_key
from ..common.output_paths import beside_rows
from ..common.store_check import id_of

_HASHES: Final = {"pdq": "varchar(64)", "pdq_quality": "int32", "digest": "varchar(40)"}
"""Columns of held rows that go no further."""

_DIGEST: Final = 16


class HeldRows:
    """The rows of a job whose near-duplicates are found when all are there. To be closed.

    Args:
        config: of the job.
    """

    def __init__(self, config: VideoConfig) -> None:
        self._config = config
        # Without books nobody goes on with it: then it lies in a folder of this run's own, whatever else is there.
        self._own = _folder_beside_rows(config) if config.job is None else None
        base = config.job or self._own
        assert base is not None
        self._folder, self._signatures, self._note = base / "held", base / "signatures", base / "survivors.json"
        self._spent = self._folder.with_name(f"{self._folder.name}{TEMPORARY}")
        self._sink: Sink | None = None
        shutil.rmtree(self._spent, ignore_errors=True)  # of a run that was killed while it deleted it

    @property
    def is_held(self) -> bool:
        """Whether rows wait for the decision, or for being copied."""
        return self._folder.exists()

    @property
    def survivors(self) -> int:
        """Rows that were copied into the stores by an earlier run."""
        return int(self._said["rows"]) if self._said else 0

    @property
    def frames(self) -> int:
        """Frames of the videos that earlier decisions were about."""
        return int(self._said.get("frames", 0))

    @property
    def id(self) -> str:
        """Of what earlier runs have held back, as the books know it; empty where there were none."""
        return id_of(self._said["note"]) if self._said else ""

    @property
    def is_copied(self) -> bool:
        """Whether the stores have all rows of a decision. Before, all are copied again."""
        return self._note.exists()

    def vouched(self, found: Found | None) -> Found | None:
        """What a store holds, as the books know it: they have the note of the rows that were held back."""
        return Found(found.rows, self._said["note"]) if found and self._said else found

    @property
    def _number(self) -> Path:
        """The file that has the number of the decision on the rows that are held, once it has been begun."""
        return self._folder / "decision"

    @property
    def _said(self) -> dict[str, Any]:
        return dict(json.loads(self._note.read_text())) if self._note.exists() else {}

    def sink(self, dimension: Callable[[], int], note: str) -> Sink:
        """Where rows go for now; open."""
        if self._sink is None:
            self._sink = self._made(dimension(), note)
            self._sink.open()
        return self._sink

    def look(self) -> Found | None:
        """What is held; without changing anything."""
        return self._made(None, "").look()

    def release(self, stores: Sink, frames: int) -> Decision:
        """Decide, and copy what stays into the stores. All rows are there, and `sink` is open.

        Args:
            stores: open.
            frames: of all videos of the job that are written.

        Raises:
            SinkError: a store refuses.
        """
        assert self._sink is not None
        self._sink.finish()
        run = self._run()
        decision = self._decided(self._sink, run)
        gone = {each.key for each in decision.duplicates()}
        for batch in _scanned(self._sink):
            kept = [row for row, columns in enumerate(batch.columns) if _key(columns) not in gone]
            if kept:
                plain = [{k: v for k, v in batch.columns[row].items() if k not in _HASHES} for row in kept]
                vectors = np.ascontiguousarray(batch.vectors[kept])
                ordinals = None if batch.ordinals is None else [batch.ordinals[row] for row in kept]
                stores.write(RowBatch([batch.keys[row] for row in kept], vectors, plain, ordinals))
        stores.finish()
        said = {"run": run, "frames": frames, "rows": decision.items - decision.dropped, "note": self._sink.note}
        write_text(self._note, json.dumps({**said, **decision.figures}))
        return decision

    def drop(self) -> None:
        """What was held has been copied, and is not needed any more."""
        self.close()
        if self.is_held:
            self._folder.rename(self._spent)  # half of it would be taken for rows that are lost
            shutil.rmtree(self._spent, ignore_errors=True)

    def close(self) -> None:
        """Close the data set."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)

    def _made(self, dimension: int | None, note: str) -> Sink:
        fields = {**FRAME_FIELDS, **self._config.fields, **_HASHES}
        job = job_id(self._config.job) if self._config.job else ""
        options = SinkOptions(dimension=dimension, note=note, fields=fields, job=job)
        return make_sink(f"parquet:{self._folder / 'rows'}", options)

    def _run(self) -> int:
        """Which decision of the job this is; the same when it is made again."""
        if not self._number.exists():
            write_text(self._number, str(self._said.get("run", -1) + 1))
        return int(self._number.read_text())

    def _decided(self, sink: Sink, number: int) -> Decision:
        """What goes: of these rows, and of those of earlier runs, of which those that stayed stay."""
        run = f"{number:06}-"
        writer = SignatureWriter(self._signatures)
        for part in parts_in(self._signatures):
            if part.name.startswith(run):  # of an attempt that came to nothing
                part.unlink()
        for part_number, batch in enumerate(_scanned(sink)):
            writer.write(f"{run}{part_number:09}", _signatures(batch))
        return decide(self._signatures, Rule.parse(rule_of(self._config)))


def _folder_beside_rows(config: VideoConfig) -> Path:
    """A new folder on the disk where the rows go."""
    near = beside_rows(config, "held")
    near.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{near.name}-", dir=near.parent))


def rule_of(config: VideoConfig) -> str:
    """By which frames of different videos are near-duplicates: with GIST as the reference's default, else by hashes."""
    return "default" if config.embedder.startswith("gist") else "strict"


def listed(duplicates: Iterable[Duplicate]) -> list[dict[str, Any]]:
    """Rows of a table."""
    names = ("key", "duplicate_of", "similarity", "rule")
    return [{name: getattr(each, name) for name in names} for each in duplicates]


def _scanned(sink: Sink) -> Iterator[RowBatch]:
    scanner = sink.scanner()
    assert scanner is not None
    return scanner.scan()


def _key(columns: dict[str, Any]) -> str:
    return frame_key(columns["video_key"], columns["frame_pts_us"])


def _signatures(batch: RowBatch) -> Signatures:
    columns = batch.columns
    quality = np.array([each["pdq_quality"] for each in columns], np.uint8)
    digest = np.array([_bytes(each["digest"])[:_DIGEST] for each in columns])
    digest[quality < INFORMATIVE] = 0
    return Signatures.of(
        [_key(each) for each in columns],
        batch.vectors,
        groups=[each["video_key"] for each in columns],
        short_side=np.array([min(each["width"], each["height"]) for each in columns]),
        quality=quality,
        time=np.array([each["frame_pts_us"] for each in columns]),
        pdq=np.array([_bytes(each["pdq"]) for each in columns]),
        digest=digest,
    )


def _bytes(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(bytes.fromhex(text), np.uint8)
