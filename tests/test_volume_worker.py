"""A volume worker over a folder of pages: what becomes of each page, and which settings are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import ConfigError, PipelineFailure
from penstock.bench.page_renderer import WARPS, bent
from penstock.bench.volume_parts import Around
from penstock.preprocess.pages.summary import PageSummary
from penstock.preprocess.pages.transform import PageTransform, plan_transform
from penstock.tests.scans import WatchedBatcher, by_page, config, page, tasks_in, worker, write_pages
from penstock.volumes import ImageTask

ANGLE = 3.0


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a volume of three straight pages, one turned and one bent."""
    folder = tmp_path_factory.mktemp("volumes")
    pages = {f"page-{number}.png": page(number) for number in range(3)}
    pages["page-3.png"] = page(3, ANGLE)
    pages["page-4.png"] = bent(page(4), WARPS["curl"])
    write_pages(folder / "vol", pages)
    return folder


@pytest.mark.slow
def test_pages_become_records_and_crooked_ones_are_straightened(volumes: Path) -> None:
    """Straight ones are looked at once; of others the record says how they lay, and how they lie now."""
    done = worker(volumes, config(volumes, batch_size=8))
    report = done.run_sync()
    report.check(ended=True)
    records = by_page(done)
    assert [record.key for record in records] == [f"vol/page-{number}.png" for number in range(5)]
    assert [record.page for record in records] == list(range(5))
    assert {(record.volume_id, record.width, record.height, record.patches) for record in records[:4]} >= {
        ("vol", 700, 1000, 4)
    }
    assert [record.size for record in records] == [(volumes / record.key).stat().st_size for record in records]
    for straight in records[:3]:
        assert straight.passes == 0
        assert abs(straight.angle) < 0.15
        assert (straight.control_points, straight.quality_after, straight.out_width) == (None, None, None)
    turned, curled = records[3:]
    assert turned.passes == 1
    assert turned.angle == pytest.approx(ANGLE, abs=0.1)
    assert curled.passes >= 1
    assert curled.bend * 2000 / curled.width > 4
    for crooked in (turned, curled):
        assert crooked.control_points is not None
        assert crooked.control_points.shape[1] == 4
        assert crooked.quality_after is not None
        assert crooked.quality_after > crooked.quality - 0.2
        assert crooked.out_width is not None


@pytest.mark.slow
def test_control_points_lead_from_the_result_back_to_the_scan(volumes: Path) -> None:
    """The middle of a turned page stays where it is; right of it lies what was higher in the scan."""
    done = worker(volumes, tasks=tasks_in(volumes, "vol")[3:4])
    done.run_sync()
    (record,) = done.records
    assert record.control_points is not None
    x, y, scan_x, scan_y = record.control_points.T
    turn = np.deg2rad(record.angle)
    middle_x, middle_y = (record.width - 1) / 2, (record.height - 1) / 2
    frame_x = middle_x + np.cos(turn) * (scan_x - middle_x) - np.sin(turn) * (scan_y - middle_y)
    frame_y = middle_y + np.sin(turn) * (scan_x - middle_x) + np.cos(turn) * (scan_y - middle_y)
    shifts = frame_x - x, frame_y - y  # the result may be larger than the scan
    assert all(np.ptp(shift) < 6 for shift in shifts)


def test_vectors_are_means_over_the_area_of_the_page(tmp_path: Path) -> None:
    """A page of 700 pixels has two patches across, which overlap: what lies in both counts once."""
    dark = np.full((512, 700), 200, np.uint8)
    dark[:, :350] = 100
    write_pages(tmp_path / "vol", {"half.png": dark})
    done = worker(tmp_path, transform=Around(lambda _: 0), batcher=WatchedBatcher(config(tmp_path)))
    done.run_sync()
    (record,) = done.records
    assert record.patches == 2
    assert record.vector is not None
    assert record.vector == pytest.approx([150] * 3, abs=2)


@pytest.mark.parametrize(("embedder", "dimension"), [("gist:32", 512), ("jax:penstock.tests.scans:jax_means", 3)])
def test_any_embedder_makes_the_vectors(tmp_path: Path, embedder: str, dimension: int) -> None:
    """Those that belong into workers, too, several batches at once."""
    write_pages(tmp_path / "vol", {f"{number}.png": np.full((600, 600), number, np.uint8) for number in range(3)})
    cfg = config(tmp_path, embedder=embedder, image_size=None, dtype=None, compute_threads=3)
    done = worker(tmp_path, cfg, batcher=WatchedBatcher(cfg), transform=Around(lambda _: 0))
    done.run_sync()
    assert not done.failures
    vectors = [record.vector for record in done.records]
    assert [None if vector is None else vector.shape for vector in vectors] == [(dimension,)] * 3


@pytest.mark.slow
def test_pages_without_lines_of_text_stay_as_they_are(tmp_path: Path) -> None:
    """Blank, a picture and nothing else, one pixel: records, with a quality that says why."""
    noise = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8).repeat(20, 0).repeat(20, 1)
    pages = {"blank.png": np.full((700, 600), 250, np.uint8), "one.png": np.zeros((1, 1), np.uint8), "photo.png": noise}
    write_pages(tmp_path / "vol", pages)
    done = worker(tmp_path)
    done.run_sync()
    assert not done.failures
    records = by_page(done)
    assert [record.passes for record in records] == [0, 0, 0]
    assert all(record.quality < 1 for record in records)
    assert [(record.width, record.height) for record in records] == [(600, 700), (1, 1), (800, 600)]


@pytest.mark.slow
def test_colours_and_depths_are_taken_as_they_come(tmp_path: Path) -> None:
    """A page in colours goes round in colours; one of 16 bits is scaled, not clipped."""
    turned = page(1, ANGLE)
    write_pages(tmp_path / "vol", {"deep.png": turned.astype(np.uint16) * 257, "red.png": np.stack([turned] * 3, -1)})
    done = worker(tmp_path)
    done.run_sync()
    assert not done.failures
    assert [record.passes for record in by_page(done)] == [1, 1]
    assert [record.angle for record in by_page(done)] == pytest.approx([ANGLE, ANGLE], abs=0.1)


@pytest.mark.slow
def test_a_page_goes_round_at_most_so_often(volumes: Path) -> None:
    """Even where it would never be good enough."""
    cfg = config(volumes, min_angle=0, max_passes=2)
    done = worker(volumes, cfg, tasks=tasks_in(volumes, "vol")[3:4])
    done.run_sync()
    (record,) = done.records
    assert record.passes == 2
    measured = worker(volumes, config(volumes, max_passes=0), tasks=tasks_in(volumes, "vol")[3:4])
    measured.run_sync()
    (record,) = measured.records
    assert (record.passes, record.control_points) == (0, None)
    assert record.angle == pytest.approx(ANGLE, abs=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config(to="a", out_prefix=None, index="HNSW"), "index: jobs on volumes have no such setting"),
        (lambda: config(s3_max_inflight=0), "s3_max_inflight"),
        (lambda: worker(Path("/nowhere"), config(job="job"), tasks=[]), "job: the books of volumes are kept by"),
        (lambda: worker(Path("/nowhere"), config(report="r.json"), tasks=[]), "report: a worker returns its report"),
        (lambda: config(s3_bukcet="b"), "s3_bukcet"),
        (
            lambda: worker(Path("/nowhere"), tasks=[ImageTask("k", volume_id="other")]),
            "tasks: 'k' is of the volume 'other'",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    """Before anything is begun."""
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_key_without_a_bucket_is_said_so(tmp_path: Path) -> None:
    """The one setting that is missing."""
    done = worker(tmp_path, config(), tasks=[ImageTask("vol/1.jpg")])
    with pytest.raises(PipelineFailure) as caught:
        done.run_sync()
    assert "s3_bucket is missing" in str(caught.value.exceptions[0])


@pytest.mark.slow
def test_what_is_compiled_for_patches_is_kept_where_nobody_else_uses_jax() -> None:
    """A second process need not compile it."""
    code = (
        "from penstock.volumes import GpuBatcher, PipelineConfig; "
        "batcher = GpuBatcher(PipelineConfig(embedder='gist:32')); batcher.open(); batcher.close(); "
        "import jax; assert jax.config.jax_compilation_cache_dir and jax.config.jax_platforms == 'cpu'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


@pytest.mark.slow
@pytest.mark.parametrize("wrong_pass", [1, 2])
def test_a_result_that_is_worse_than_before_is_not_taken(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, wrong_pass: int
) -> None:
    """The row is that of the scan, or of the pass before, with its vector and its control points; and says so."""
    turned = tasks_in(volumes, "vol")[3:4]
    calls = count(1)

    def wrongly(summary: PageSummary, *arguments: Any) -> PageTransform | None:
        other_way = replace(summary, angle=-ANGLE, coefficients=None)
        return plan_transform(other_way if next(calls) == wrong_pass else summary, *arguments)

    monkeypatch.setattr("penstock.engine.jobs.volumes.transform.plan_transform", wrongly)
    done = worker(volumes, config(volumes, min_angle=0, max_passes=2), tasks=turned)
    done.run_sync()
    monkeypatch.undo()
    before = worker(volumes, config(volumes, max_passes=wrong_pass - 1), tasks=turned)
    before.run_sync()
    (record,), (right,) = done.records, before.records
    assert (record.passes, record.best_pass) == (wrong_pass, wrong_pass - 1)
    assert record.vector is not None
    assert right.vector is not None
    np.testing.assert_allclose(record.vector, right.vector)
    assert (record.out_width, record.quality_after) == (right.out_width, right.quality_after)
    assert (record.control_points is None) == (right.control_points is None)
    if right.control_points is not None:
        np.testing.assert_array_equal(record.control_points, right.control_points)
