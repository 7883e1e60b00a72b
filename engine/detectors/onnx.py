"""A detector in a ``.onnx`` file, through ONNX Runtime on the CPUs of this process.

What it takes is read from the file, the names of its classes from what the exporter wrote into it (Ultralytics does) or
from ``names=``, and how it lays out what it found from a run on an empty square, before a job starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

import numpy as np

from ...errors import ConfigError, DetectError, DetectorError
from ..embedders.base import Array, Options, digest, no_options, spec_string
from ..embedders.onnx_session import (
    PIXEL_TYPES,
    Session,
    model_digests,
    number,
    padded,
    pixel_input,
    start_session,
    threads_option,
)
from ..embedders.pictures import geometry
from .base import Detections, Detector, UInt8
from .boxes import GREY, Letterbox, letterbox
from .layouts import LAYOUTS, Layout, Plan, Shapes, find_plan, read
from .names import Names, image_size, model_names, option_names

_SIZE: Final = 640  # of a model that takes any size and does not say which it was trained with
_ROWS: Final = 8  # frames in a call of a model that takes any number


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of a spec; None: what the model says.

    Attributes:
        layout: See `layouts`.
        names: Of the classes in their order, by commas, or ``@FILE`` with one a line.
        size: Side of the square, in pixels.
        conf: The least score.
        iou: Boxes of one class that overlap by more are on one thing.
        threads: That compute a call.
    """

    layout: Layout | None = None
    names: str | None = None
    size: int | None = None
    conf: float = 0.25
    iou: float = 0.5
    threads: int | None = None


_DEFAULTS: Final = asdict(Settings())


@dataclass(frozen=True, slots=True)
class _Input:
    """What a model takes; `batch` is None where it takes any number."""

    name: str
    dtype: str
    batch: int | None
    nchw: bool
    size: int

    def fed(self, squares: UInt8) -> Array:
        """Squares uint8 ``[n, S, S, 3]`` as the model takes them."""
        ordered = squares.transpose(0, 3, 1, 2) if self.nchw else squares
        if self.dtype == "uint8":
            return padded(np.ascontiguousarray(ordered), self.batch)
        pixels = np.ascontiguousarray(ordered, np.float32)
        pixels /= 255
        return padded(pixels.astype(self.dtype, copy=False), self.batch)


@dataclass(frozen=True, slots=True)
class _Model:
    """A loaded model, what it takes, and how its answers are read."""

    session: Session
    input: _Input
    names: Names
    plan: Plan


class OnnxDetector(Detector):
    """``onnx:FILE.onnx``, with the options of `Settings`.

    The model has one input ``[n, 3, S, S]`` or ``[n, S, S, 3]``, ``n`` and ``S`` fixed or not, of float32 or float16
    (pixels 0..1) or uint8 (0..255), and outputs in one of the layouts of `layouts`. Frames are put into the square as
    large as they fit, on grey.
    """

    def __init__(self, path: str, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        options = {name: str(value) for name, value in asdict(self.settings).items() if value != _DEFAULTS[name]}
        super().__init__(f"onnx:{path.rpartition('/')[2]}", spec_string(f"onnx:{path}", **options))
        self._path = path
        self._model: _Model | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._loaded(1).names.by_number.values())

    @property
    def fingerprint(self) -> str:
        """Of the bytes of the file and of weights kept beside it, and of the options but threads."""
        chosen = self.settings
        names = option_names(chosen.names).text if chosen.names else ""
        options = (chosen.layout, names, chosen.size, chosen.conf, chosen.iou)
        return digest("detector", repr(options), *model_digests("detector", self._path))

    def open(self, threads: int = 1) -> None:
        """Load the model and try it on an empty square."""
        self._loaded(threads)

    def detect(self, frames: Sequence[UInt8]) -> list[Detections | DetectError]:
        model = self._model
        if model is None:
            raise DetectorError(f"{self.name}: detect() before open()")
        answers: list[Detections | DetectError] = []
        step = model.input.batch or _ROWS
        for start in range(0, len(frames), step):
            answers += self._look(model, frames[start : start + step])
        return answers

    def close(self) -> None:
        self._model = None  # ends ONNX Runtime's threads

    def _look(self, model: _Model, frames: Sequence[UInt8]) -> list[Detections | DetectError]:
        squares = np.empty((len(frames), model.input.size, model.input.size, 3), np.uint8)
        places = [letterbox(frame, square) for frame, square in zip(frames, squares, strict=True)]
        outputs = _run(self.name, model.session, model.input, model.plan.outputs, squares)
        return [self._answer(model, place, [output[row] for output in outputs]) for row, place in enumerate(places)]

    def _answer(self, model: _Model, place: Letterbox, outputs: list[Array]) -> Detections | DetectError:
        try:
            raw = read(model.plan, outputs, model.input.size, self.settings.conf, self.settings.iou)
        except DetectError as error:
            return DetectError(f"{self.name}: {error}")
        return Detections(place.back(raw.boxes), raw.scores, tuple(map(model.names.of, raw.classes.tolist())))

    def _loaded(self, threads: int) -> _Model:
        if self._model is None:
            session = start_session("detector", self._path, self.settings.threads or threads, DetectorError)
            self._model = _understand(self.name, session, self.settings)
        return self._model


def make_onnx_detector(rest: str, options: Options) -> OnnxDetector:
    """``onnx:FILE.onnx[?layout=v8&names=person,dog&size=640&conf=0.25&iou=0.5&threads=1]``.

    Raises:
        ConfigError: the file's name or an option is not one.
    """
    where = f"onnx:{rest}"
    no_options(where, options, tuple(_DEFAULTS), "detector")
    if not rest:
        raise ConfigError("detector onnx: say which file, e.g. onnx:yolo.onnx")
    layout = options.get("layout")
    if layout is not None and layout not in LAYOUTS:
        raise ConfigError(f"detector {where}: layout={layout!r} must be one of {', '.join(LAYOUTS)}")
    size = options.get("size")
    if size is not None and not (size.isdecimal() and len(size) < 5 and int(size) >= 32):
        raise ConfigError(f"detector {where}: size={size!r} must be 32 to 9999 pixels")
    return OnnxDetector(
        rest,
        Settings(
            layout=layout,
            names=options.get("names"),
            size=int(size) if size else None,
            conf=_share(where, "conf", options),
            iou=_share(where, "iou", options),
            threads=threads_option(f"detector {where}", options.get("threads")),
        ),
    )


def _share(where: str, name: Literal["conf", "iou"], options: Options) -> float:
    text = options.get(name, str(_DEFAULTS[name]))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise ConfigError(f"detector {where}: {name}={text!r} must be above 0 and at most 1")
    return value


def _understand(name: str, session: Session, settings: Settings) -> _Model:
    meta = session.get_modelmeta().custom_metadata_map
    takes = _input(name, session, settings.size, meta)
    names = option_names(settings.names) if settings.names else model_names(name, meta)
    outputs = [output.name for output in session.get_outputs()]
    takes, shapes = _tried(name, session, takes, outputs)
    plan = find_plan(name, shapes, names.count, settings.layout)
    return _Model(session, takes, names.counted_from(plan.first), plan)


def _tried(name: str, session: Session, takes: _Input, outputs: Sequence[str]) -> tuple[_Input, Shapes]:
    """What comes out for an empty square; two where it may be any number, so that the axis of the batch is told.

    Exporters say that it may be any number of models which have it fixed further in: those are fed one at a time.
    """
    empty = np.full((2, takes.size, takes.size, 3), GREY, np.uint8)
    try:
        found = _run(name, session, takes, outputs, empty[: takes.batch])
    except (DetectorError, ConfigError):
        if takes.batch is not None:
            raise
        return _tried(name, session, replace(takes, batch=1), outputs)
    return takes, {output: array.shape for output, array in zip(outputs, found, strict=True)}


def _input(name: str, session: Session, size: int | None, meta: Mapping[str, str]) -> _Input:
    node = pixel_input(name, session)
    where = f"{name}: input {node.name!r} has shape {node.shape}"
    layout, side = geometry(where, [number(dimension) for dimension in node.shape[1:]])
    if side and size and side != size:
        raise ConfigError(f"{name} takes {side} x {side} pixels: leave out size={size}")
    chosen = side or size or image_size(meta) or _SIZE
    return _Input(node.name, PIXEL_TYPES[node.type], number(node.shape[0]), layout != "NHWC", chosen)


def _run(name: str, session: Session, takes: _Input, outputs: Sequence[str], squares: UInt8) -> list[Array]:
    pixels = takes.fed(squares)
    try:
        found = session.run(list(outputs), {takes.name: pixels})
    except Exception as error:
        raise DetectorError(f"{name} failed on {list(pixels.shape)} {pixels.dtype} pixels: {error}") from error
    for output, array in zip(outputs, found, strict=True):
        if array.ndim == 0 or len(array) != len(pixels):
            raise ConfigError(
                f"{name}: output {output!r} has shape {list(array.shape)} for {len(pixels)} pictures: "
                "its first axis must be that of the pictures"
            )
    return found
