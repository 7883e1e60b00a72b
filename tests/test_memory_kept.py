"""The memory ceiling is kept: what a job takes stays below what was computed for it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from penstock.engine import Report
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.memory_estimate import estimate_memory
from penstock.engine.jobs.common.memory_monitor import MemoryMonitor
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.images.embed import embed_images
from penstock.engine.jobs.images.pipeline import ImageEmbeddingPipeline
from penstock.engine.observe.report import MemoryReport
from penstock.engine.sources import open_source
from penstock.errors import ConfigError
from penstock.tests.ceilings import GIB, MIB, ceiling
from penstock.tests.packed import picture


def sample(**taken: int) -> Report:
    """A report whose memory was found to be that, by process."""
    pids = {"parent": os.getpid(), "worker": 1001, "other": 1002}
    each = {pids[name]: nbytes for name, nbytes in taken.items()}
    whole = sum(each.values())
    return Report(memory=MemoryReport(whole, whole, len(each), 1, "pss", each))


@pytest.mark.parametrize(("name", "side"), [("parent", "parent"), ("worker", "workers"), ("other", "store")])
def test_a_sample_above_the_ceiling_names_who_took_it(name: str, side: str, caplog: pytest.LogCaptureFixture) -> None:
    """Once; nothing is ended for it."""
    whole = ceiling(workers=1, to="photos.db")
    keeper = MemoryMonitor(whole, lambda: {1001})
    with caplog.at_level(logging.WARNING):
        keeper.look(Report())
        keeper.look(sample(parent=whole.total // 2, worker=whole.total // 2))
        assert not caplog.messages
        for _ in range(2):
            keeper.look(sample(**{name: 20 * GIB}))
    (said,) = caplog.messages
    assert f"most of it by the {side}" in said


def test_rows_that_are_in_the_store_already_are_said_not_to_be_counted(tmp_path: Path) -> None:
    """Milvus Lite holds them too, and nobody has counted them."""
    (tmp_path / "full.db").mkdir()
    said = "rows of others in the store"
    assert said in ceiling(entries=7, to=str(tmp_path / "full.db")).uncounted
    assert said not in ceiling(entries=7, to=str(tmp_path / "new.db")).uncounted


@pytest.mark.slow
def test_a_stream_with_settings_of_its_own_keeps_the_limit(photos: list[Path], tmp_path: Path) -> None:
    """They win over what was fit_to_memory, but not over the memory."""
    settings: dict[str, Any] = {"to": str(tmp_path / "a.db"), "max_pixels": 1_000_000, "max_file_bytes": "8MiB"}
    with ImageEmbeddingPipeline(memory="900MiB", **settings) as pipeline:
        with pytest.raises(ConfigError, match=r"900 MiB is too little.*\(with workers=9, as set\)"):
            pipeline.insert_images_streaming(photos[:2], num_preprocess_workers=9)
        assert len(pipeline.insert_images_streaming(photos[:2], batch_size=2, num_preprocess_workers=1)) == 2
        assert pipeline.ceiling.settings["batch_size"] == 2


@pytest.mark.slow
def test_a_job_that_may_take_more_than_there_is_says_so(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a limit too, and goes on."""
    monkeypatch.setattr("penstock.engine.jobs.common.memory_monitor.memory_available", lambda: GIB)
    report = embed_images(photos[:2], to=str(tmp_path / "a.db"), workers=1)
    assert report.accounting.written == 2
    assert any("only 1.0 GiB can be had now" in said for said in caplog.messages)
    assert report.extra["memory_ceiling"]["bytes"] > GIB


@pytest.mark.slow
def test_a_job_goes_on_with_other_memory(photos: list[Path], tmp_path: Path) -> None:
    """The settings that come out may differ from run to run; what the books hold is part of the figure."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    common = {"to": str(tmp_path / "a.db"), "job": tmp_path / "job", "max_pixels": 1_000_000, "max_file_bytes": "8MiB"}
    (folder / "first.jpg").write_bytes(photos[0].read_bytes())
    first = embed_images(folder, config=ServiceConfig(**common, memory="16GiB"))
    (folder / "second.jpg").write_bytes(photos[1].read_bytes())
    second = embed_images(folder, config=ServiceConfig(**common, memory="830MiB", update=True))
    assert (first.accounting.written, second.accounting.written, second.extra["job"]["written"]) == (1, 1, 2)
    before, after = first.extra["memory_ceiling"], second.extra["memory_ceiling"]
    assert after["workers"] == 1 <= before["workers"]
    assert after["bytes"] <= 830 * MIB
    assert after["parts"]["books"] > before["parts"]["books"] > 0


def wide(folder: Path, pixels: int) -> int:
    """Large pictures of several kinds, all just within a limit of pixels; returns how many."""
    side = int(pixels**0.5) // 8 * 8
    small = np.random.default_rng(1).integers(0, 256, (side // 8, side // 8, 4), np.uint8)
    rgba = Image.fromarray(np.kron(small, np.ones((8, 8, 1), np.uint8)))
    rgba.save(folder / "alpha.png", compress_level=1)
    rgba.save(folder / "alpha.webp", lossless=True, method=0, quality=0)
    rgba.convert("CMYK").save(folder / "press.jpg", progressive=True, subsampling=0)
    Image.fromarray(np.asarray(rgba)[:, :, 0].astype(np.float32) / 255).save(
        folder / "depth.tif", compression="tiff_deflate"
    )
    return 4


@pytest.mark.slow
def test_the_ceiling_is_kept_as_seen_from_outside(photos: list[Path], tmp_path: Path) -> None:
    """The real command with little memory: every row is there, and no sample of its processes is above the figure."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for photo in photos:
        (folder / photo.name).write_bytes(photo.read_bytes())
    count = len(photos) + wide(folder, 12_000_000)
    limits = ["--max-pixels", "12000000", "--max-file-bytes", "48MiB", "--memory", "1200MiB"]
    command = [
        sys.executable,
        "-m",
        "penstock",
        "embed",
        str(folder),
        "--to",
        str(tmp_path / "a.db"),
        *limits,
    ]
    with subprocess.Popen(
        [*command, "--report", str(tmp_path / "report.json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, taken(process.pid))
        said = process.stderr.read() if process.stderr else ""
    assert process.returncode == 0, said
    report = json.loads((tmp_path / "report.json").read_text())
    whole = report["extra"]["memory_ceiling"]
    assert report["accounting"]["written"] == count
    assert "penstock: memory: at most" in said
    assert 300 * MIB < peak <= whole["bytes"] <= whole["limit"] == 1200 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("dictionary", [True, False])
def test_the_ceiling_holds_for_a_table_of_large_groups(tmp_path: Path, dictionary: bool) -> None:
    """A page of 190 MB, or nearly: what the job's own process takes is below its parts, and would not be without it."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    noise = np.random.default_rng(0)
    rows = [picture(number) + noise.bytes(3_000_000) for number in range(64)]  # behind its end a PNG may have anything
    pq.write_table(
        pa.table({"image": rows}), tmp_path / "a.parquet", row_group_size=len(rows), use_dictionary=dictionary
    )
    del rows
    sizes: dict[str, Any] = {"max_pixels": 1_000_000, "max_file_bytes": 4 * MIB, "workers": 1, "batch_size": 1}
    config = ServiceConfig(to="null:", **sizes, insert_batch_size=16, slots=1)
    plan = make_plan(config)
    reading = open_source([str(tmp_path / "a.parquet")]).memory(plan.spec.max_file_bytes)
    memory = estimate_memory(plan, config, source=reading).total + 16 * MIB  # little for pictures on their way
    options = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    command = [sys.executable, "-m", "penstock", "embed", str(tmp_path / "a.parquet"), "--to", "null:", *options]
    command += ["--insert-batch-size=16", "--slots=1", f"--memory={memory}", "--report", str(tmp_path / "report.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        own = whole = 0
        while process.poll() is None:
            own, whole = max(own, taken(process.pid, below=False)), max(whole, taken(process.pid))
        said = process.stderr.read() if process.stderr else ""
    assert process.returncode == 0, said
    report = json.loads((tmp_path / "report.json").read_text())
    parts = report["extra"]["memory_ceiling"]["parts"]
    assert report["accounting"]["written"] == 64
    most = sum(parts[name] for name in ("parent", "rows", "source", "pictures in memory"))
    assert most - parts["source"] < own <= most
    assert whole <= report["extra"]["memory_ceiling"]["bytes"] <= memory


def taken(pid: int, *, below: bool = True) -> int:
    """Bytes of a process and all below it, pages that are shared counted once."""
    whole = 0
    try:
        for process in (parent := psutil.Process(pid), *(parent.children(recursive=True) if below else ())):
            whole += process.memory_full_info().pss
    except psutil.Error:
        pass
    return whole
