"""What becomes of a page that was looked at: it is straightened and goes round, or it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ....preprocess.pages.resample import resample
from ....preprocess.pages.summary import PageSummary, summarise
from ....preprocess.pages.transform import PageTransform, Thresholds, plan_transform
from ...config.volumes import PipelineConfig
from .pages import DecodedFrame, PageLook, Record, UInt8, Vector


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What was seen of a scan, or of what was made of it: all that a record says, and no pixels.

    Attributes:
        passes: how often it had been straightened: 0, it is the scan.
        width: in pixels, as is height.
        patches: that were looked at.
        vector: of the page as it was then.
        summary: of its lines.
        transform: from it back to the scan; None: it is the scan.
    """

    passes: int
    width: int
    height: int
    patches: int
    vector: Vector | None
    summary: PageSummary
    transform: PageTransform | None

    @property
    def departure(self) -> float:
        return self.summary.departure(self.width)


@dataclass(frozen=True, slots=True, eq=False)
class _Course:
    """What is kept of a page that goes round.

    Attributes:
        scan: its pixels as they were: however often it goes round, it is resampled once.
        first: what the first look has seen.
        best: the look at which its lines lay straightest so far.
        transform: from the result that goes round back to the scan.
    """

    scan: UInt8
    first: _Look
    best: _Look
    transform: PageTransform


class TransformController:
    """Turns and dewarps pages that need it. Another one is any object with the same `inspect`.

    A result whose lines lie worse than those of what it was made of is not taken: the page is done as it was before.

    Args:
        cfg: from when on, and how often at most.
    """

    def __init__(self, cfg: PipelineConfig) -> None:
        self._thresholds = Thresholds(cfg.min_angle, cfg.min_bend, cfg.min_quality)
        self._max_passes = cfg.max_passes

    def inspect(self, page: PageLook) -> DecodedFrame | Record:
        """The straightened page, to be looked at again; or the record of a page that is done. Called in threads.

        Args:
            page: its features are those of the first pass.

        Raises:
            ItemError: the page cannot be straightened.
        """
        frame = page.frame
        course = frame.before if isinstance(frame.before, _Course) else None
        look = _looked(page, course)
        first, best = (course.first, course.best) if course else (look, look)
        if course and look.departure < best.departure:
            best = look
        plan = None
        if best is look and frame.passes < self._max_passes:
            plan = plan_transform(look.summary, frame.width, frame.height, self._thresholds)
        if plan is None:
            return _record(page, first, best)
        scan, whole = (course.scan, course.transform.followed_by(plan)) if course else (frame.pixels, plan)
        straight = resample(scan, whole)
        return replace(frame, pixels=straight, passes=frame.passes + 1, before=_Course(scan, first, best, whole))


def _looked(page: PageLook, course: _Course | None) -> _Look:
    frame, transform = page.frame, course.transform if course else None
    summary = summarise(np.stack(page.features), frame.grid, transform.inside if transform else None)
    return _Look(frame.passes, frame.width, frame.height, len(frame.grid), page.vector, summary, transform)


def _record(page: PageLook, first: _Look, best: _Look) -> Record:
    task, passes = page.frame.task, page.frame.passes
    record = Record(
        key=task.key,
        volume_id=task.volume_id,
        page=task.page,
        etag=task.etag,
        size=task.size,
        width=first.width,
        height=first.height,
        angle=first.summary.angle,
        bend=first.summary.bend,
        quality=first.summary.quality,
        passes=passes,
        best_pass=best.passes if passes else None,
        patches=best.patches,
        vector=best.vector,
    )
    if best.transform is None:
        return record
    return replace(
        record,
        quality_after=best.summary.quality,
        control_points=_control_points(best.transform),
        out_width=best.width,
        out_height=best.height,
    )


def _control_points(transform: PageTransform) -> NDArray[np.float32]:
    return np.concatenate([transform.result, transform.scan], axis=1)
