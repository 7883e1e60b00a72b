"""The stages that there are for videos as messages: download, extract, filter, and the collector of near-duplicates.

They work on folders: a stage leaves a folder that is complete by its rename, with a manifest, and the next one reads
that. `penstock videos` is quicker, since there frames go from the decoder into shared memory; this is for stages of
your own in between.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Final

import numpy as np

from ....durable import write_text
from ....errors import VideoError
from ....preprocess.videos.filters import Thresholds, decide
from ....preprocess.videos.statistics import STATISTICS, FrameStatistics
from ....preprocess.worker.frame_files import MANIFEST
from ....sinks.signatures import Signatures, SignatureWriter
from ...config.videos import VideoConfig
from ...dedup import Duplicate, Rule
from ...dedup import decide as decide_duplicates
from ...machine.resources import usable_cores
from ...sources.frame_keys import frame_key
from ...workers import WorkerPool
from .downloads import VideoFiles
from .extraction import ExtractRequest, extract_frames
from .messages import BaseStageWorker, StageMessage
from .values import Video

PASSED: Final = "passed.jsonl"
"""The lines of a manifest that a filter has left."""


class DownloadWorker(BaseStageWorker):
    """Has videos on this machine; files of the user's stay where they are.

    Args:
        config: of the job.
        files: where videos lie.
        name: of the stage.
    """

    def __init__(self, config: VideoConfig, files: VideoFiles, *, name: str = "download") -> None:
        super().__init__(name=name, concurrency=config.downloads)
        self._files = files

    def process(self, msg: StageMessage) -> StageMessage:
        """See `BaseStageWorker.process`; `input_path` becomes the file."""
        key = str(msg.metadata["key"])
        source = str(msg.input_path) if "://" in str(msg.input_path) else None
        video = self._files.fetch(Video(key, str(msg.input_path), source=source))
        return msg.followed(Path(video.path), url=video.url, title=video.title)


class ExtractWorker(BaseStageWorker):
    """Takes frames of videos, in processes that can be killed: JPEG files in a folder with a manifest.

    Args:
        config: of the job.
        files: where frames lie.
        name: of the stage.
    """

    def __init__(self, config: VideoConfig, files: VideoFiles, *, name: str = "extract") -> None:
        super().__init__(name=name, concurrency=config.workers or usable_cores())
        self._config, self._files = config, files
        self._pool: WorkerPool | None = None

    def open(self) -> None:
        """Have processes."""
        preload = [ExtractRequest.__module__]
        self._pool = WorkerPool(self.concurrency, preload=preload, item_timeout=self._config.video_timeout)

    def process(self, msg: StageMessage) -> StageMessage:
        """See `BaseStageWorker.process`; `input_path` becomes the folder of frames."""
        assert self._pool is not None
        folder = self._files.frames_folder(str(msg.metadata["key"]))
        limits = {"max_duration_s": self._config.max_duration, "max_frames": self._config.max_frames}
        request = ExtractRequest(str(msg.input_path), folder, self._config.every, limits)
        frames: int = self._pool.submit(extract_frames, request).result()
        return msg.followed(Path(folder), frame_count=frames)

    def close(self) -> None:
        """End the processes."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.kill_workers()
            pool.shutdown()


class FilterWorker(BaseStageWorker):
    """Leaves out frames by their statistics: writes ``passed.jsonl`` beside the manifest.

    Args:
        config: of the job.
        name: of the stage.
    """

    def __init__(self, config: VideoConfig, *, name: str = "filter") -> None:
        super().__init__(name=name)
        self._filters, self._thresholds = config.filter, Thresholds(**config.thresholds)

    def process(self, msg: StageMessage) -> StageMessage | None:
        """See `BaseStageWorker.process`. None where no frame is left."""
        folder = Path(msg.input_path)
        frames = manifest_of(folder, MANIFEST)
        columns = {name: np.array([frame[name] for frame in frames], np.float32) for name in STATISTICS}
        reasons = decide(FrameStatistics(**columns), self._filters, self._thresholds) if frames else []
        passed = [frame for frame, reason in zip(frames, reasons, strict=True) if reason is None]
        write_text(folder / PASSED, "".join(f"{json.dumps(frame)}\n" for frame in passed))
        return msg.followed(folder, passed=len(passed), total=len(frames)) if passed else None


class DedupCollector(BaseStageWorker):
    """Collects signatures of the frames that have passed, and decides in the end which are near-duplicates of others.

    Args:
        folder: for the signatures.
        rule: ``strict``; see `docs/dedup.md`. Vectors are none of its business.
        name: of the stage.
    """

    def __init__(self, folder: Path, rule: str = "strict", *, name: str = "dedup") -> None:
        super().__init__(name=name)
        self._folder, self._rule = folder, Rule.parse(rule)
        self._writer: SignatureWriter | None = None
        self._mutex = threading.Lock()

    def open(self) -> None:
        """Have the folder."""
        self._writer = SignatureWriter(self._folder)

    def process(self, msg: StageMessage) -> StageMessage:
        """See `BaseStageWorker.process`; the message goes on as it is."""
        assert self._writer is not None
        frames = manifest_of(Path(msg.input_path), PASSED)
        key = str(msg.metadata["key"])
        if frames:
            with self._mutex:
                self._writer.write(msg.video_id, _signatures(key, frames))
        return msg

    def duplicates(self) -> list[Duplicate]:
        """Frames that are near-duplicates of one that stays, by key; the same whatever the order of arrival."""
        return list(decide_duplicates(self._folder, self._rule).duplicates())


def manifest_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a manifest.

    Raises:
        VideoError: there is none: the stage before has left nothing.
    """
    try:
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]
    except FileNotFoundError as error:
        raise VideoError(f"there is no {name} in {str(folder)!r}") from error


def _signatures(key: str, frames: list[dict[str, Any]]) -> Signatures:
    def rows(name: str) -> Any:
        return np.array([np.frombuffer(bytes.fromhex(frame[name]), np.uint8) for frame in frames])

    return Signatures.of(
        [frame_key(key, frame["pts_us"]) for frame in frames],
        np.ones((len(frames), 1), np.float32),
        groups=[key] * len(frames),
        short_side=np.array([min(frame["width"], frame["height"]) for frame in frames]),
        quality=np.array([frame["quality"] for frame in frames]),
        time=np.array([frame["pts_us"] for frame in frames]),
        pdq=rows("pdq"),
        digest=rows("digest"),
    )
