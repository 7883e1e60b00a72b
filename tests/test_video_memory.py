"""What a job on videos may take follows the largest frame that is allowed."""

from __future__ import annotations

from penstock.engine.config.videos import VideoConfig
from penstock.engine.jobs.common.memory_estimate import estimate_memory
from penstock.engine.jobs.common.plan import make_plan


def test_smaller_frames_are_less_memory() -> None:
    """By as much as a decoder keeps of each pixel; pictures have no part in it."""

    def worker(**settings: int) -> int:
        config = VideoConfig(to="null:", workers=1, **settings)
        (part,) = (part for part in estimate_memory(make_plan(config), config).parts if part.name == "worker")
        return part.nbytes

    full_hd, uhd = worker(max_pixels=1920 * 1080), worker(max_pixels=3840 * 2160)
    assert uhd - full_hd == 36 * 3 * 1920 * 1080
    assert worker() > uhd
    assert full_hd < 512 * 2**20
