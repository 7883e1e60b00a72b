"""The examples run as they stand, from any folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.tests.waiting import DEADLINE

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.slow


def run(*arguments: str, cwd: Path) -> str:
    """Run an example; its output."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_embeds_searches_and_names_what_to_open(tmp_path: Path) -> None:
    """What ``make demo`` runs: rows for all photographs, the query first among its neighbours, two pages."""
    output = run(str(EXAMPLES / "demo.py"), str(EXAMPLES / "photos"), "--out", "out", cwd=tmp_path)
    assert "= written 43 + filtered 2 + dead 0 + in flight 0" in output
    assert "astronaut-1.jpg" in output
    for page in ("contact-sheet.html", "report.html"):
        assert str(tmp_path / "out" / page) in output
        assert "<html" in (tmp_path / "out" / page).read_text()[:200]
    assert "data:image/jpeg;base64" in (tmp_path / "out" / "contact-sheet.html").read_text()


def test_the_demo_of_videos_shows_frames_and_the_clip_that_is_there_twice(tmp_path: Path) -> None:
    """What ``make demo-video`` runs: six clips of which one is a copy, and one that is broken."""
    pytest.importorskip("av")
    output = run(str(EXAMPLES / "demo_video.py"), str(EXAMPLES / "photos"), "--out", "out", cwd=tmp_path)
    assert "read 7 = written 6 + filtered 0 + dead 1 + in flight 0" in output
    assert re.search(r"clip-\d\.mp4  at 0:00:0\d\.\d{3}", output)
    for page in ("frames.html", "duplicates.html"):
        assert str(tmp_path / "out" / page) in output
        text = (tmp_path / "out" / page).read_text()
        assert text.count("data:image/jpeg;base64") > 10
        assert "clip-1-again.mkv" in text
        assert "at 0:00:01.000" in text


def test_the_three_ways_are_compared(tmp_path: Path) -> None:
    """All three insert the same ids, and each has its line."""
    output = run(str(EXAMPLES / "async_batch_processing.py"), "--repeat", "1", cwd=tmp_path)
    assert [line.split()[0] for line in output.splitlines()] == [
        "insert_images",
        "insert_images_async",
        "insert_images_streaming",
    ]


def test_the_builder_runs_a_graph_of_ones_own(tmp_path: Path) -> None:
    """Blocking, async and generating operations in one graph."""
    output = run(str(EXAMPLES / "pipeline_builder.py"), cwd=tmp_path)
    assert "dropped" in output
    assert "pixels" in output


def test_hooks_see_every_task(photos: list[Path], tmp_path: Path) -> None:
    """A bar for each photograph in each stage, and the failures by name."""
    output = run(str(EXAMPLES / "task_hooks.py"), "--trace", "trace.json", cwd=tmp_path)
    assert f"load: {len(photos) + 2} tasks, 2 failed" in output
    assert "not pictures: LICENSES.md, README.md" in output
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) == 2 * len(photos) + 2


def test_first_and_second_passes_have_batches_of_their_own(photos: list[Path], tmp_path: Path) -> None:
    """All are measured once, some of them twice."""
    output = run(str(EXAMPLES / "lanes_in_aggregate.py"), cwd=tmp_path)
    assert f"first: {len(photos)} in, {len(photos)} measured" in output
    assert " at 192 pixels" in output
    assert " at  64 pixels" in output


def test_patches_come_back_to_their_photographs(photos: list[Path], tmp_path: Path) -> None:
    """All photographs, and as many patches accounted for as were cut."""
    output = run(str(EXAMPLES / "fanout_gather.py"), cwd=tmp_path)
    assert f"{len(photos)} photographs of {len(photos)}, 4710 patches" in output
    assert "cameraman-1.jpg      40 patches, 9 flat, 0 failed" in output


def test_async_for_beside_another_task(photos: list[Path], tmp_path: Path) -> None:
    """What is sent arrives."""
    output = run(str(EXAMPLES / "async_iteration.py"), cwd=tmp_path)
    assert f"sent {len(photos)} thumbnails, received {len(photos)} " in output


def test_vectors_without_a_store(photos: list[Path], tmp_path: Path) -> None:
    """All photographs, and which are alike."""
    output = run(str(EXAMPLES / "embed_without_a_store.py"), cwd=tmp_path)
    assert f"{len(photos)} photographs, vectors of 512 floats" in output


def test_a_volume_worker_with_parts_of_ones_own(photos: list[Path], tmp_path: Path) -> None:
    """Decoder, patch function, transform and writer, in two volumes side by side."""
    told = run(str(EXAMPLES / "volume_parts.py"), cwd=tmp_path)
    even, odd = told.splitlines()
    assert even.startswith(f"even: {(len(photos) + 1) // 2} pages, ")
    assert odd.startswith(f"odd: {len(photos) // 2} pages, ")
    assert " 0 of them" not in told
