"""What can be set about jobs on videos: the settings of any job, and those of a video miner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from ...errors import ConfigError
from .model import PER_RUN, ServiceConfig, Store
from .types import Size

FRAME_FIELDS: Final[Mapping[str, str]] = {
    "video_key": "varchar(65535)",
    "url": "varchar(16384)",
    "title": "varchar(16384)",
    "duration_s": "double",
    "frame_pts_us": "int64",
    "is_keyframe": "bool",
    "detections": "json",
    **dict.fromkeys(("mean", "std", "entropy", "blur", "biggest_bin", "flat_share", "edge_share"), "float"),
}
"""Columns of a frame in a data set (parquet:, lance:, npy:), with their types. Other stores have them as metadata."""

_TABLES: Final = ("parquet:", "lance:", "npy:")

_OTHERS: Final = frozenset({"decoder", "threads", "devices", "sandbox", "background", "value_range", "max_side"})
"""Settings that a job on videos does not have."""

FilterName = Literal["blur", "black", "flat", "slide", "noise"]


def _every(value: str) -> str:
    """A way to choose frames."""
    from ...preprocess.videos import Sampling  # where somebody says one, and no sooner

    try:
        Sampling.parse(value)
    except ConfigError as error:
        raise ValueError(str(error).partition(": ")[2]) from error
    return value


def _words(value: object) -> object:
    """``blur,black``, or a list."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple):
        return value
    return tuple(dict.fromkeys(str(word).strip() for word in cast("list[object]", value) if str(word).strip()))


def _thresholds(value: object) -> object:
    """``blur=0.05,black_mean=10``, or the mapping it makes; those that are not the defaults."""
    from ...preprocess.videos.filters import Thresholds  # where somebody says one, and no sooner

    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value)
        value = ",".join(f"{name}={said}" for name, said in pairs.items())
    try:
        return Thresholds.parse(value).changed() if isinstance(value, str) else value
    except ConfigError as error:
        raise ValueError(str(error).partition(": ")[2]) from error


class VideoConfig(ServiceConfig):
    """Everything that can be set about a video miner, beside what `ServiceConfig` has for every job.

    Raises:
        ConfigError: a value is not allowed, a name is no field, or a field that videos do not have; the message names
            it.
    """

    kind: ClassVar[str] = "videos"
    stages: ClassVar[tuple[str, ...]] = ("source", "download", "extract", "detect", "embed", "insert")
    budgets: ClassVar[Mapping[str, str]] = {
        "source": "source",
        "download": "preprocess",
        "extract": "preprocess",
        "videos": "videos",
    }
    gathered_at: ClassVar[str | None] = "videos"
    per_run: ClassVar[frozenset[str]] = PER_RUN | {
        *("video_timeout", "max_disk", "downloads", "downloader", "per_host", "politeness"),
        *("download_timeout", "cookies", "async_mode", "html"),
    }

    every: Annotated[str, AfterValidator(_every)] = Field(default="1s", json_schema_extra={"metavar": "STEP"})
    """Which frames are taken: one for each step of time, as 1s, 500ms or 2min; keyframes; or scenes, the middle one of
    each shot."""

    filter: Annotated[tuple[FilterName, ...], BeforeValidator(_words)] = Field(
        default=(), json_schema_extra={"metavar": "NAME,..."}
    )
    """Leave out frames that are blur, black, flat, slide (of text) or noise; several with commas."""

    thresholds: Annotated[dict[str, float], BeforeValidator(_thresholds)] = Field(
        default_factory=dict[str, float], json_schema_extra={"metavar": "NAME=NUMBER,..."}
    )
    """Of filters, where their defaults do not suit: black_mean, slide_bin, slide_flat, slide_edges, flat_std,
    flat_entropy, blur, noise; as in blur=0.05,black_mean=10."""

    classes: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(
        default=(), json_schema_extra={"metavar": "NAME,..."}
    )
    """Leave out frames in which the --detector finds nothing of these classes; several with commas."""

    detector: str | None = Field(default=None, min_length=1, json_schema_extra={"metavar": "SPEC"})
    """What finds things in frames: onnx:FILE.onnx, a model of yours. Boxes and scores are a column of each row."""

    dedup: Literal["off", "video", "all"] = "off"
    """Leave out frames that repeat the last one of their video that was kept; or besides, when all videos are done,
    those that are near-duplicates of a frame of any video that stays. Rows are held back until then."""

    html: Path | None = Field(default=None, json_schema_extra={"metavar": "FILE.html"})
    """Also write a contact sheet: frames that were kept, with their times."""

    keep: Literal["none", "frames", "all"] = "none"
    """What stays in --work: nothing; the frames that are kept, as JPEG files; or these and the downloaded videos."""

    work: Path | None = Field(default=None, json_schema_extra={"metavar": "DIR"})
    """Folder for downloads and for frames that are kept: a new one, or that of this job. [default: work in the job's
    folder, or beside the rows]"""

    max_disk: Size | None = Field(default=None, json_schema_extra={"metavar": "SIZE"})
    """Bytes of videos in --work before downloads wait. [default: 20 GB, or a quarter of what is free]"""

    downloads: int = Field(default=3, ge=1, le=64, json_schema_extra={"metavar": "N"})
    """Downloads at once, each in a process of its own."""

    per_host: int = Field(default=2, ge=1, le=64, json_schema_extra={"metavar": "N"})
    """Downloads at once from one host."""

    politeness: float = Field(default=5.0, ge=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """Seconds between two downloads from pages (yt-dlp), at least."""

    download_timeout: float = Field(default=3600.0, gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """A download that takes longer is ended; what has come of a file is gone on with at the next attempt."""

    downloader: Literal["auto", "fetch", "yt-dlp"] = "auto"
    """What links are: files (fetch), pages (yt-dlp), or whatever they turn out to be."""

    cookies: Path | None = Field(default=None, json_schema_extra={"metavar": "FILE"})
    """Cookies for pages, in Netscape's format. Read, never written."""

    max_file_bytes: Size | None = Field(default=None, json_schema_extra={"metavar": "SIZE"})
    """Larger videos are not downloaded. [default: 4GiB]"""

    item_timeout: float = Field(default=30.0, gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """A video whose decoder stands still for longer is a dead letter, and its process is replaced."""

    video_timeout: float = Field(default=3600.0, gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """Seconds of processor time that the decoding of one video may take; the rest of a longer one is given up."""

    max_duration: float = Field(default=86_400.0, gt=0, allow_inf_nan=False, json_schema_extra={"metavar": "SECONDS"})
    """Longer videos are refused."""

    max_frames: int = Field(default=100_000, ge=1, le=1 << 24, json_schema_extra={"metavar": "N"})
    """Videos of which more frames would be taken are refused."""

    max_pixels: int | None = Field(default=None, ge=1, le=2**32, json_schema_extra={"metavar": "N"})
    """Videos whose frames have more pixels are refused. [default: 35,389,440, which is 8K]"""

    async_mode: bool = True
    """Overlap the stages. Without it one process does them in turn, with the same results."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if wrong := sorted(self.model_fields_set & _OTHERS):
            raise ConfigError(f"{wrong[0]}: jobs on videos have no such setting")
        if self.classes and self.detector is None:
            raise ConfigError("classes: are what a detector finds; give one with detector (--detector onnx:FILE.onnx)")

    @property
    def own_fingerprints(self) -> Mapping[str, str]:
        """Which frames there are: rows that were chosen otherwise are another job's."""
        chosen = {"every": self.every, "filter": ",".join(sorted(self.filter)), "dedup": self.dedup}
        if self.filter and self.thresholds:
            chosen["thresholds"] = ",".join(f"{name}={self.thresholds[name]:g}" for name in sorted(self.thresholds))
        seen = {"classes": ",".join(sorted(self.classes))}
        if self.detector is not None:
            from ..detectors import parse_detector

            seen["detector"] = parse_detector(self.detector).fingerprint
        return {"frames": ", ".join(f"{name} {said}" for name, said in {**chosen, **seen}.items() if said)}

    def _store(self, uri: str) -> Store:
        """A data set has typed columns for what is known of every frame."""
        store = super()._store(uri)
        if store.address.startswith(_TABLES):
            store.config.fields = {**FRAME_FIELDS, **store.config.fields}
        return store
