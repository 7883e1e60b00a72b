"""What a worker of videos and its parent say to each other: JSON in frames of ``shm.protocol``.

A task is a piece of one video: up to a slot's rows of its frames, from a number on. An answer says what lies in the
slot, which frames were left out, and whether there is more. Of the frames in the slot the numbers are there, too
(`FRAMES`).
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from ...errors import ItemError, WorkerError
from ...shm import ArraySpec, SlotLayout
from ...shm.protocol import DONE, HEAD, TASK, Message, decode_failures, encode_failures
from ..slot_layout import pixel_layout
from ..videos.statistics import STATISTICS
from .protocol import Timings

FRAMES: Final = "frames"
"""Of each frame in a slot, int64: its number among those taken, its time in microseconds, whether it is a keyframe, and
whether its time is an estimate."""

FRAME_COLUMNS: Final = ("index", "pts_us", "is_keyframe", "time_estimated")

STATISTICS_ARRAY: Final = "statistics"
"""Of each frame in a slot, float32: the numbers that filters decide by, in the order of ``videos.statistics``."""

WITHOUT: Final = "classes"
"""The reason for which a frame is left out in which nothing of the wanted classes was found."""

REPEATED: Final = "duplicate"
"""The reason for which a frame is left out that repeats the last one of its video that was kept."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """What a worker of videos is started with (as JSON: nothing is pickled).

    Attributes:
        spec: the preprocessing specification of frames, as JSON.
        rows: the most frames of a task.
        every: which frames are taken, as ``Sampling.parse`` reads it.
        limits: of a video, fields of ``VideoLimits``.
        embedder: see ``WorkerSettings``; likewise dimension and path.
        filters: names of those that are asked, see ``videos.filters``.
        neighbours: whether frames go that repeat the last one of their video that was kept.
        detector: ``[factory, spec]`` of what finds things in frames; None: nothing does.
        classes: of which a frame must have something; empty: of none.
        dimension: room for vectors that are made elsewhere, in floats.
        stall_timeout: seconds that a decoder may take for one packet.
        cpu_timeout: seconds of processor time that the decoding of one video may take.
        path: the parent's ``sys.path``.
        thresholds: of filters, those that are not the defaults: fields of ``videos.filters.Thresholds``.
    """

    spec: dict[str, Any]
    rows: int
    every: str
    limits: dict[str, float]
    embedder: tuple[str, str] | None = None
    dimension: int = 0
    filters: tuple[str, ...] = ()
    neighbours: bool = False
    detector: tuple[str, str] | None = None
    classes: tuple[str, ...] = ()
    stall_timeout: float = 30.0
    cpu_timeout: float = 3600.0
    path: list[str] = field(default_factory=lambda: list(sys.path))
    thresholds: dict[str, float] = field(default_factory=dict[str, float])

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Kept:
    """The last frame of a video that was kept, as the next ones are compared with it.

    Attributes:
        pts_us: its time.
        digest: of its pixels, in hex; likewise pdq, its hash, and its quality.
    """

    pts_us: int
    digest: str
    pdq: str
    quality: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A frame that was taken and left out.

    Attributes:
        pts_us: its time.
        reason: the filter that it goes by, or `REPEATED`.
        of_us: the time of the frame that it repeats; None of others.
        distance: between their hashes, in bits.
        statistics: its numbers.
    """

    pts_us: int
    reason: str
    of_us: int | None
    distance: int
    statistics: list[float]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a detector has found in a frame, the surest first; or why it could not say.

    Attributes:
        boxes: left, top, right, bottom of each, in pixels of the frame.
        scores: 0..1.
        classes: names.
        error: empty where it could.
    """

    boxes: list[list[float]]
    scores: list[float]
    classes: list[str]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A task: some frames of a video.

    Attributes:
        path: of the file, as the operating system knows it.
        start: number of the first frame; those before have been taken.
        cpu_used: seconds of processor time that the pieces before have taken.
        kept: the last frame of them that was kept, where frames are compared.
        frames: folder that the frames that are kept go to as JPEG files, complete with the last of them; None: nowhere.
    """

    path: str
    start: int = 0
    cpu_used: float = 0.0
    kept: Kept | None = None
    frames: str | None = None


@dataclass(frozen=True, slots=True)
class PieceSaid:
    """What a worker says of a piece besides its rows.

    Attributes:
        taken: frames of it, those among them that were left out, too.
        has_more: whether there are frames behind it.
        left_out: those of them that were.
        info: what the video's header says (``VideoInfo``).
        found: what was found in it so far (``VideoFindings``), scenes as pairs of microseconds.
        cpu_used: see `Piece`, with this one.
        timings: seconds of its phases.
        kept: see `Piece`, for the next one.
        seen: of each frame in the slot; empty without a detector.
        hashes: of each frame in the slot; empty where frames are not compared.
    """

    taken: int
    has_more: bool
    left_out: Sequence[LeftOut]
    info: Mapping[str, Any]
    found: Mapping[str, Any]
    cpu_used: float
    timings: Timings
    kept: Kept | None = None
    seen: Sequence[Seen] = ()
    hashes: Sequence[Kept] = ()

    @property
    def rows(self) -> int:
        """Frames that lie in the slot."""
        return self.taken - len(self.left_out)

    @property
    def is_sound(self) -> bool:
        """Whether it is something that a worker of ours says: what it decodes may have made it say anything."""
        sizes = [self.info.get(name) for name in ("width", "height")]
        whole = all(isinstance(number, int) and number > 0 for number in sizes)
        fits = all(len(each) in (0, self.rows) for each in (self.seen, self.hashes))
        said: list[object] = [self.taken, self.cpu_used, self.has_more]
        return whole and fits and all(isinstance(each, int | float) for each in said) and said[2] in (True, False)


@dataclass(frozen=True, slots=True)
class PieceDone:
    """The answer to a task."""

    slot: int
    generation: int
    rows: range
    failures: list[tuple[int, ItemError]]
    said: PieceSaid | None

    def check(self, size: int) -> None:
        """Make sure that it makes sense.

        Raises:
            WorkerError: it does not.
        """
        failed = [position for position, _ in self.failures]
        fits = failed == [0] and not self.rows if self.said is None else not failed
        if size != 1 or not fits:
            raise WorkerError(f"an answer to a task of {size} videos: {len(self.rows)} rows, failures of {failed}")
        if self.said and not self.said.is_sound:
            raise WorkerError(f"an answer about a video that makes no sense: {self.said!r:.300}")
        if self.said and self.said.rows != len(self.rows):
            raise WorkerError(
                f"{len(self.rows)} rows of {self.said.taken} frames, of which {len(self.said.left_out)} were left out"
            )


def video_layout(rows: int, pixel_shape: tuple[int, ...], pixel_dtype: str, dimension: int) -> SlotLayout:
    """A slot for frames of a video: that of pictures, and what is known of each frame."""
    layout = pixel_layout(rows, pixel_shape, pixel_dtype, dimension)
    numbers = (
        ArraySpec(FRAMES, (len(FRAME_COLUMNS),), "int64"),
        ArraySpec(STATISTICS_ARRAY, (len(STATISTICS),), "float32"),
    )
    return SlotLayout(rows, (*layout.arrays, *numbers))


class PieceCodec:
    """Pieces as tasks, and what a worker says of them."""

    def encode(self, slot: int, generation: int, items: Sequence[Piece]) -> Message:
        """A TASK."""
        return Message.of(
            [HEAD.pack(TASK, slot, generation, len(items)), json.dumps([*map(asdict, items)]).encode()], []
        )

    def decode(self, frame: bytes) -> PieceDone:
        """A DONE."""
        _, slot, generation, rows = HEAD.unpack_from(frame)
        (length,) = _LENGTH.unpack_from(frame, HEAD.size)
        begin = HEAD.size + _LENGTH.size
        said = json.loads(frame[begin : begin + length])
        found = None if said is None else _said(said)
        return PieceDone(slot, generation, range(rows), decode_failures(frame[begin + length :]), found)

    def describe(self, item: Piece) -> str:
        """The path, and which frame it begins with."""
        return f"{item.path!r} from frame {item.start}"


def decode_pieces(body: bytes | memoryview) -> list[Piece]:
    """The pieces of a task, from what follows its head."""
    plain: list[dict[str, Any]] = json.loads(bytes(body))
    return [Piece(**dict(each, kept=_kept(each["kept"]))) for each in plain]


def encode_piece_done(
    slot: int, generation: int, rows: int, said: PieceSaid | None, failures: Sequence[tuple[int, ItemError]] = ()
) -> bytes:
    """A DONE frame."""
    text = json.dumps(None if said is None else asdict(said)).encode()
    return HEAD.pack(DONE, slot, generation, rows) + _LENGTH.pack(len(text)) + text + encode_failures(failures)


def _said(plain: Mapping[str, Any]) -> PieceSaid:
    made: dict[str, Any] = {
        **plain,
        "left_out": [LeftOut(**each) for each in plain["left_out"]],
        "timings": Timings(**plain["timings"]),
        "kept": _kept(plain["kept"]),
        "seen": [Seen(**each) for each in plain["seen"]],
        "hashes": [Kept(**each) for each in plain["hashes"]],
    }
    return PieceSaid(**made)


def _kept(plain: Mapping[str, Any] | None) -> Kept | None:
    return None if plain is None else Kept(**plain)
