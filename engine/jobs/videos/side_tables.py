"""What there is to know of videos, besides the rows of their frames: ``videos.parquet`` and ``clips.parquet``.

A line for each video is appended to a file as soon as the video is done, before its outcome is recorded in the job's
books: so a job that is killed has lost none. When the job is done the newest line of each video becomes a row of the
tables, which lie in the job's folder, or beside the place that the rows of frames go to: a reader of that data set sees
nothing of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ....durable import TEMPORARY, LineFile, put
from ....errors import ConfigError
from ....messages import redact
from ....preprocess.pdq import BYTES
from ....preprocess.videos.statistics import STATISTICS
from ....preprocess.worker.video_protocol import REPEATED
from ....sinks.arrow import arrow
from ...config.model import ServiceConfig
from ...sources.frame_keys import frame_key
from ..common.output_paths import beside_rows
from .values import Video

_LINES: Final = "videos.jsonl"

_INFO: Final = ("width", "height", "fps", "codec", "container", "rotation", "is_mirrored")
_FOUND: Final = ("frames_decoded", "is_truncated", "damaged")

_VIDEO_COLUMNS: Final = {
    **dict.fromkeys(("video_key", "url", "title", "status", "stage", "error", "error_message"), "string"),
    "duration_s": "float64",
    "width": "int32",
    "height": "int32",
    "fps": "float64",
    "codec": "string",
    "container": "string",
    "rotation": "int32",
    "is_mirrored": "bool_",
    "frames_decoded": "int64",
    "is_truncated": "bool_",
    "damaged": "int64",
    **dict.fromkeys(("frames", "frames_written", "frames_dropped", "frames_dead"), "int64"),
    "duplicate_of": "string",
    "duplicate_share": "float64",
    "ordinal": "int64",
}
_FILTERED_COLUMNS: Final = {
    "video_key": "string",
    "frame_pts_us": "int64",
    "reason": "string",
    **dict.fromkeys(STATISTICS, "float32"),
}
_DUPLICATE_COLUMNS: Final = {"key": "string", "duplicate_of": "string", "similarity": "float32", "rule": "string"}
_CLIP_COLUMNS: Final = {"video_key": "string", "scene": "int32", "start_us": "int64", "end_us": "int64"}


class VideoTable:
    """A line for each video that is done; the newest one stands. To be closed.

    Args:
        config: of the job.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self._keeps_books = config.job is not None
        self._places = {name: beside_rows(config, f"{name}.parquet") for name in ("videos", *_OTHERS)}
        self._lines = LineFile(beside_rows(config, _LINES))

    def begin(self) -> None:
        """A run begins. One without books begins anew."""
        if not self._keeps_books:
            self._lines.path.unlink(missing_ok=True)

    def add(
        self, key: str, ordinal: int, video: Video | None, status: str, stage: str = "", error: str = "", why: str = ""
    ) -> None:
        """A video is done.

        Args:
            key: of it.
            ordinal: its place in the listing of the job.
            video: what is known of it; None for what never was one.
            status: ``written`` or ``dead``.
            stage: where it died; likewise error, the name of its class, and why.
            error: empty for one that is written.
            why: what the error says.
        """
        said: dict[str, Any] = {"video_key": redact(key), "ordinal": ordinal, "status": status}
        if error:
            said |= {"stage": stage, "error": error, "error_message": why}
        self._lines.append(json.dumps({**said, **(_known(video) if video else {})}).encode() + b"\n")

    def sync(self) -> None:
        """Back when all lines are on the medium."""
        self._lines.sync()

    @property
    def frames_written(self) -> int:
        """Rows of frames that the videos have that are written."""
        return sum(int(row.get("frames_written", 0)) for row in self._newest() if row["status"] == "written")

    def publish(
        self, across: Iterable[Mapping[str, Any]] = (), same: Mapping[str, tuple[str, float]] | None = None
    ) -> None:
        """All videos are done: write the tables, each at once. Without pyarrow the lines are what there is.

        Args:
            across: frames that are near-duplicates of frames of other videos: rows of ``duplicates``.
            same: videos that are the same as another one, with that one and the share of frames that match.
        """
        self._lines.close()
        try:
            arrow()
        except ConfigError:
            return
        _write(self._places["videos"], _VIDEO_COLUMNS, _with_duplicates(self._newest(), same or {}))
        for name, (columns, rows_of) in _OTHERS.items():
            rows = list(rows_of(self._newest()))
            if name == "duplicates":
                rows = sorted([*rows, *map(dict, across)], key=lambda row: str(row["key"]))
            if rows:
                _write(self._places[name], columns, iter(rows))
        if not self._keeps_books:
            self._lines.path.unlink(missing_ok=True)

    @property
    def is_published(self) -> bool:
        """Whether the tables are there."""
        return self._places["videos"].exists()

    def close(self) -> None:
        """Close the file of lines."""
        self._lines.close()

    def _newest(self) -> Iterator[dict[str, Any]]:
        """The newest line of each video, in the order of the listing."""
        try:
            lines = self._lines.path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        found: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                row = json.loads(line)
                found[row["video_key"]] = row
            except (ValueError, KeyError, TypeError):
                continue  # torn: its video is done again
        yield from sorted(found.values(), key=lambda row: (row["ordinal"], row["video_key"]))


def _known(video: Video) -> dict[str, Any]:
    tally = video.tally
    return {
        "url": video.url and redact(video.url),
        "title": video.title,
        "duration_s": video.duration_s,
        **{name: video.info.get(name) for name in _INFO},
        **{name: video.found.get(name) for name in _FOUND},
        "frames": tally.created,
        "frames_written": tally.written,
        "frames_dropped": tally.dropped.total(),
        "frames_dead": tally.dead,
        "scenes": video.found.get("scenes") or [],
        "left_out": [asdict(frame) for frame in video.left_out],
    }


def _with_duplicates(rows: Iterator[dict[str, Any]], same: Mapping[str, tuple[str, float]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        of, share = same.get(row["video_key"], (None, None))
        yield {**row, "duplicate_of": of, "duplicate_share": share}


def _clips(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        scenes: list[list[int]] = row.get("scenes") or []
        for number, (start, end) in enumerate(scenes):
            yield {"video_key": row["video_key"], "scene": number, "start_us": start, "end_us": end}


def _filtered(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for frame in row.get("left_out") or ():
            if frame["reason"] != REPEATED:
                numbers = dict(zip(STATISTICS, frame["statistics"], strict=True))
                known = {"frame_pts_us": frame["pts_us"], "reason": frame["reason"]}
                yield {"video_key": row["video_key"], **known, **numbers}


def _duplicates(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for frame in row.get("left_out") or ():
            if frame["reason"] == REPEATED:
                key, of = (frame_key(row["video_key"], frame[name]) for name in ("pts_us", "of_us"))
                similarity = 1 - frame["distance"] / (8 * BYTES)
                yield {"key": key, "duplicate_of": of, "similarity": similarity, "rule": "neighbour"}


_OTHERS: Final = {
    "clips": (_CLIP_COLUMNS, _clips),
    "filtered": (_FILTERED_COLUMNS, _filtered),
    "duplicates": (_DUPLICATE_COLUMNS, _duplicates),
}
"""Tables that there are where they have rows."""


def _write(path: Path, columns: dict[str, str], rows: Iterator[dict[str, Any]]) -> None:
    pa, pq = arrow()
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in columns.items()])
    unfinished = path.with_name(f".{path.name}{TEMPORARY}")
    chosen = [{name: row.get(name) for name in columns} for row in rows]
    pq.write_table(pa.Table.from_pylist(chosen, schema=schema), unfinished, compression="zstd")
    put(unfinished, path)
