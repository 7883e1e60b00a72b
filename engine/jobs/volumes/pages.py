"""What flows through the graph of a volume: tasks, decoded pages, patches, pages that were looked at, records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....preprocess.pages.patches import PatchGrid
from ... import ItemFailure

UInt8 = NDArray[np.uint8]
Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageTask:
    """A page to be done.

    Attributes:
        key: in the bucket of the configuration; where that names none, a whole URL or an absolute path.
        etag: that the object must have; None: whatever is there now.
        size: bytes that it must have; None: any.
        volume_id: of its volume.
        page: its number in the volume, from 0; -1: its place among the tasks of a worker.
        ordinal: its place in the books of a job; -1 in others.
    """

    key: str
    etag: str | None = None
    size: int | None = None
    volume_id: str = ""
    page: int = -1
    ordinal: int = -1


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """The bytes of a page's file."""

    task: ImageTask
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class DecodedFrame:
    """A decoded page: as scanned, or straightened.

    Attributes:
        task: which page.
        pixels: uint8 ``[h, w]`` in grey, or ``[h, w, 3]`` in colours.
        passes: how often it has been straightened.
        before: what whoever straightened it wants to know when it comes back; opaque to all others.
    """

    task: ImageTask
    pixels: UInt8
    passes: int = 0
    before: Any = None

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def grid(self) -> PatchGrid:
        """Where its patches lie."""
        return PatchGrid(self.width, self.height)


@dataclass(slots=True, eq=False)
class Patch:
    """A square of a page on its way into a batch.

    Attributes:
        frame: the page, which keeps its pixels.
        index: of the patch in the page's grid.
        is_last: whether what is done with it now is not done again.
    """

    frame: DecodedFrame
    index: int
    is_last: bool = False

    def pixels(self) -> UInt8:
        """uint8 ``[512, 512]``, with the colours of the page."""
        return self.frame.grid.cut(self.frame.pixels, self.index)


@dataclass(frozen=True, slots=True, eq=False)
class PatchResult:
    """What a batch has found out about one of its patches.

    Attributes:
        features: the patch function's row for it.
        vector: float32 ``[D]``; None without an embedder.
        error: why it could not be done; then there is neither.
    """

    features: Any = None
    vector: Vector | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PageLook:
    """A page all of whose patches have come back.

    Attributes:
        frame: the page.
        features: what the patch function found in each patch, in the order of the page's grid.
        vector: float32 ``[D]``, the mean of the patches' vectors over the area of the page; None without an embedder.
    """

    frame: DecodedFrame
    features: Sequence[Any]
    vector: Vector | None


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A row: what there is to know of a page. Pixels have their origin at the centre of the first one.

    Attributes:
        key: of the page's task, as are volume_id, page and etag.
        size: bytes of its file.
        width: of the scan, in pixels; likewise height.
        angle: of its lines, in degrees, counter-clockwise positive.
        bend: the most by which a line departs from a straight one, in pixels.
        quality: how much the lines stand out, 0 (blank) to 5, in the scan.
        quality_after: the same in the result; None where the scan stays.
        passes: how often it was straightened.
        best_pass: whose result is taken, since its lines lie straightest; 0: none, the scan stays. None: nothing was
            straightened.
        control_points: float32 ``[K, 4]``: x, y in the result and where that lies in the scan; None likewise.
        out_width: of the result, in pixels; None likewise, as is out_height.
        patches: how many the vector is of.
        vector: float32 ``[D]`` of the page as it is taken: the scan or the result; None without an embedder.
    """

    key: str
    volume_id: str
    page: int
    etag: str | None
    size: int | None
    width: int
    height: int
    angle: float = 0.0
    bend: float = 0.0
    quality: float = 0.0
    quality_after: float | None = None
    passes: int = 0
    best_pass: int | None = None
    control_points: NDArray[np.float32] | None = None
    out_width: int | None = None
    out_height: int | None = None
    patches: int = 0
    vector: Vector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A record on its way to the writer, with the task that it answers."""

    task: ImageTask
    record: Record


@dataclass(frozen=True, slots=True)
class Written:
    """Pages whose records a writer has taken for good."""

    tasks: list[ImageTask]


@dataclass(frozen=True, slots=True)
class PageFailure(ItemFailure):
    """A page that could not even become a task that is tried."""

    task: ImageTask = ImageTask("")


def tasks_of(value: Any) -> list[ImageTask]:
    """The pages that a value stands for; none for patches, whose page waits elsewhere."""
    match value:
        case ImageTask():
            return [value]
        case Written(tasks):
            return tasks
        case list():
            return [task for each in value if not isinstance(each, Patch) for task in tasks_of(each)]  # pyright: ignore[reportUnknownVariableType]
        case FetchedPage() | DecodedFrame() | Row():
            return [value.task]
        case PageLook():
            return [value.frame.task]
        case _:  # what gather has made: a page, and what came of its patches
            inner = getattr(value, "value", None)
            return [] if inner is None else tasks_of(inner)
