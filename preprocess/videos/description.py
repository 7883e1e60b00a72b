"""What is said about a video: by its header, by what was found when it was read, and what it may be at most."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import ConfigError


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """What a video may be; what is over it is refused before anything is decoded.

    Attributes:
        max_pixels: Width times height of a frame. A decoder holds some twenty of them: 8K takes a gigabyte.
        max_duration_s: As it is declared, and as it turns out.
        max_frames: How many frames may be taken of it.

    Raises:
        ConfigError: One is not positive.
    """

    max_pixels: int = 8192 * 4320
    max_duration_s: float = 24 * 3600
    max_frames: int = 100_000

    def __post_init__(self) -> None:
        for name, value in (
            ("max_pixels", self.max_pixels),
            ("max_duration_s", self.max_duration_s),
            ("max_frames", self.max_frames),
        ):
            if not value > 0:
                raise ConfigError(f"{name}={value}: must be over 0")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What its header and its first frame say.

    Attributes:
        width: Of a frame as it is to be seen, in pixels: turned upright, with square pixels.
        height: The same.
        duration_us: As declared; None: it is not.
        fps: Frames a second, on average; None: unknown.
        codec: FFmpeg's name: ``h264``.
        container: The same: ``mov,mp4,m4a,3gp,3g2,mj2``.
        rotation: By which frames are turned counter-clockwise to be upright: 0, 90, 180, 270 degrees.
        is_mirrored: Whether they are mirrored first.
        is_interlaced: Whether the first frame is of two fields.
        is_hdr: Whether it is of PQ or HLG.
    """

    width: int
    height: int
    duration_us: int | None
    fps: float | None
    codec: str
    container: str
    rotation: int = 0
    is_mirrored: bool = False
    is_interlaced: bool = False
    is_hdr: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A shot: from one cut to the next one.

    Attributes:
        start_us: Microseconds from the first frame of the video.
        end_us: The same; where the next one begins.
    """

    start_us: int
    end_us: int


@dataclass(slots=True)
class VideoFindings:
    """What was found while a video was read; complete when its frames have been.

    Attributes:
        packets: Read from the file.
        frames_decoded: Of them.
        frames_used: Of those: they were given out.
        end_us: Where the last packet ends, in microseconds from the start.
        is_truncated: It ends in the middle of something, or well before the declared end.
        damaged: Places that could not be decoded; nothing is taken from there to the next keyframe.
        missed: Wanted frames that lay there.
        scenes: Where they were asked for.
    """

    packets: int = 0
    frames_decoded: int = 0
    frames_used: int = 0
    end_us: int = 0
    is_truncated: bool = False
    damaged: int = 0
    missed: int = 0
    scenes: list[Scene] = field(default_factory=list[Scene])
