"""What becomes of a page that was looked at: it is straightened and goes round, or it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ....preprocess.pages.resample import resample
from ....preprocess.pages.summary import PageSummary, summarise
from ....preprocess.pages.transform import PageTransform, Thresholds, plan_transform
from ...config.volumes import PipelineConfig
from .pages import DecodedFrame, PageLook, Record, UInt8


@dataclass(frozen=True, slots=True, eq=False)
class _Course:
    """What is kept of a page that goes round.

    Attributes:
        scan: its pixels as they were: however often it goes round, it is resampled once.
        first: what the first look said.
        transform: from the result back to the scan.
    """

    scan: UInt8
    first: PageSummary
    transform: PageTransform


class TransformController:
    """Turns and dewarps pages that need it. Another one is any object with the same `inspect`.

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
        summary = summarise(np.stack(page.features), frame.grid, course.transform.inside if course else None)
        first = course.first if course else summary
        plan = None
        if frame.passes < self._max_passes:
            plan = plan_transform(summary, frame.width, frame.height, self._thresholds)
        if plan is None:
            return _record(page, first, course, summary)
        scan, whole = (course.scan, course.transform.followed_by(plan)) if course else (frame.pixels, plan)
        straight = resample(scan, whole)
        return replace(frame, pixels=straight, passes=frame.passes + 1, before=_Course(scan, first, whole))


def _record(page: PageLook, first: PageSummary, course: _Course | None, last: PageSummary) -> Record:
    frame, task = page.frame, page.frame.task
    scan = course.scan if course else frame.pixels
    record = Record(
        key=task.key,
        volume_id=task.volume_id,
        page=task.page,
        etag=task.etag,
        size=task.size,
        width=scan.shape[1],
        height=scan.shape[0],
        angle=first.angle,
        bend=first.bend,
        quality=first.quality,
        patches=len(frame.grid),
        vector=page.vector,
    )
    if course is None:
        return record
    return replace(
        record,
        quality_after=last.quality,
        passes=frame.passes,
        control_points=_control_points(course.transform),
        out_width=frame.width,
        out_height=frame.height,
    )


def _control_points(transform: PageTransform) -> NDArray[np.float32]:
    return np.concatenate([transform.result, transform.scan], axis=1)
