"""``pages``: scanned pages: what the first pass and the resampling cost, and how exact they are on drawn text."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ..preprocess.pages.first_pass import FirstPass
from ..preprocess.pages.patches import PatchGrid, UInt8
from ..preprocess.pages.resample import Resampler, confine_opencv, resample
from ..preprocess.pages.summary import PageSummary, summarise
from ..preprocess.pages.transform import PageTransform, plan_transform
from .child import Measure, Measures
from .harness import Options, Samples, Variant, run_rounds
from .page_renderer import WARPS, Layout, Warp, bent, draw, fonts, scanned, turn
from .page_truth import bent_lines, departure, result_of, turned_lines
from .result import Goal, Result, Table, tabulate

_PAGES = 40
_BATCH = 8
_STRAIGHT = "straight pages left alone"
_LAYOUTS = (
    Layout(),
    Layout(columns=2),
    Layout(picture=True),
    Layout(table=True),
    Layout(filled=0.4),
    Layout(columns=3, size=24),
)


def run(options: Options) -> Result:
    """Pages of 2000 x 3000 pixels; ``--n``: so many straight ones, and so many that lie askew.

    Raises:
        WorkerError: a variant broke down.
    """
    n = options.n or _PAGES
    costs = run_rounds(
        [
            Variant("first pass", "pages:looked_at", one_core=True),
            *(Variant(f"resample, {each}", "pages:resampled", {"by": each}, True) for each in ("opencv", "pillow")),
        ],
        options.rounds or 5,
    )
    # Once: what is exact is so in every round. A process each: one that starts JAX waits for seconds on a busy machine.
    exact = run_rounds(
        [
            Variant("skew", "pages:skew", {"n": n}, fresh=True),
            Variant("bent", "pages:curvature", fresh=True),
            Variant("straight", "pages:straight", {"n": n}, fresh=True),
        ],
        1,
    )
    tables = (
        tabulate(
            "A page of 2000 x 3000, one core, CPU time",
            "s",
            costs.of("s"),
            goals=(Goal("first pass", 0.15, at_most=True),),
        ),
        *_exactness(exact),
    )
    return Result("pages", tables, costs.skipped)


def _exactness(exact: Samples) -> tuple[Table, ...]:
    skew, bent, alone = (
        {name: [figure] for name, figure in exact.figures[variant][0].items()}
        for variant in ("skew", "bent", "straight")
    )
    return (
        tabulate(
            "Skew of noisy pages within +-15 degrees, the greatest error",
            "degrees",
            skew,
            goals=[Goal(font, 0.2, at_most=True) for font in skew],
        ),
        tabulate(
            "Bent pages, warp and skew: how many times less the true baselines are bent (RMS)",
            "times",
            bent,
            goals=[Goal(warp, 10) for warp in bent],
        ),
        tabulate(
            "Straight pages: text, columns, pictures, tables, half empty ones",
            "share",
            alone,
            goals=[Goal(_STRAIGHT, 1.0)],
        ),
    )


def _look(first_pass: FirstPass, page: UInt8) -> PageSummary:
    grid = PatchGrid(page.shape[1], page.shape[0])
    return summarise(first_pass.of_page(page, grid), grid)


def _planned(first_pass: FirstPass, page: UInt8) -> PageTransform:
    transform = plan_transform(_look(first_pass, page), page.shape[1], page.shape[0])
    assert transform is not None
    return transform


@contextmanager
def looked_at() -> Generator[Measure, None, None]:
    """The first pass of a page: its 24 patches, and what they amount to."""
    page, first_pass = scanned(draw(Layout())[0], 0), FirstPass(_BATCH)

    def measure() -> Measures:
        start = time.process_time()
        _look(first_pass, page)
        return {"s": time.process_time() - start}

    yield measure


@contextmanager
def resampled(by: Resampler) -> Generator[Measure, None, None]:
    """The spline and the resampling of a page that is bent.

    Raises:
        ModuleNotFoundError: OpenCV is not installed.
    """
    if by == "opencv":
        confine_opencv()
    page = bent(draw(Layout())[0], WARPS["wave"])
    transform = _planned(FirstPass(_BATCH), page)

    def measure() -> Measures:
        start = time.process_time()
        resample(page, transform, resampler=by)
        return {"s": time.process_time() - start}

    yield measure


@contextmanager
def skew(n: int) -> Generator[Measure, None, None]:
    """Pages in each font, of several sizes, in one column or two; the greatest error of each, in degrees."""
    first_pass = FirstPass(_BATCH)
    angles = np.random.default_rng(1).uniform(-15, 15, max(1, n // len(fonts()))).tolist()

    def error(font: str, seed: int, angle: float) -> float:
        layout = Layout(font=font, size=(20, 28, 34, 44)[seed % 4], columns=1 + seed % 2)
        page = scanned(turn(draw(layout, seed)[0], angle), seed)
        return abs(_look(first_pass, page).angle - angle)

    def measure() -> Measures:
        return {font: max(error(font, seed, angle) for seed, angle in enumerate(angles)) for font in fonts()}

    yield measure


@contextmanager
def straight(n: int) -> Generator[Measure, None, None]:
    """Pages of which nothing is to be changed; the share of those that are left alone."""
    first_pass = FirstPass(_BATCH)

    def measure() -> Measures:
        alone = 0
        for seed in range(n):
            layout = replace(_LAYOUTS[seed % len(_LAYOUTS)], font=fonts()[seed % len(fonts())])
            summary = _look(first_pass, scanned(draw(layout, seed)[0], seed))
            alone += plan_transform(summary, layout.width, layout.height) is None
        return {_STRAIGHT: alone / n}

    yield measure


@contextmanager
def curvature() -> Generator[Measure, None, None]:
    """Pages bent in each way, straight and askew: their true baselines before and after, through the spline."""
    first_pass, layout = FirstPass(_BATCH), Layout()
    width, height = layout.width, layout.height
    page, lines = draw(layout, 1)

    def times(warp: Warp, angle: float) -> float:
        transform = _planned(first_pass, scanned(turn(bent(page, warp), angle), 1))
        before = bent_lines(lines, warp, width, height)
        scan = turned_lines(before, angle, width, height)
        after = result_of(transform, scan.reshape(-1, 2), before.reshape(-1, 2)).reshape(before.shape)
        return departure(before) / departure(after)

    def measure() -> Measures:
        return {f"{name}, {angle:g} degrees": times(warp, angle) for name, warp in WARPS.items() for angle in (0, -6)}

    yield measure
