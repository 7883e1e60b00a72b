"""No room: a small ``/dev/shm``, one that shrinks, and disks that are full or read-only. Real ones, mounted here.

What holds: a refusal before the start or a clear error that names the place and the way out; never a SIGBUS; what was
recorded can be read, and once there is room the job goes on to the end of an undisturbed one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.engine.journal import read_status
from penstock.engine.journal.disk import Disk
from penstock.errors import PenstockError
from penstock.sinks import ParquetBulkSink, is_finished, read_manifest
from penstock.tests import whole_jobs as jobs
from penstock.tests.mounts import Mounts, mounts
from penstock.tests.waiting import DEADLINE, patient
from penstock.tests.whole_jobs import digest, draw_folder, embed, started, stored, wait_for, written

pytestmark = pytest.mark.slow

PICTURES = 300
FLAGS = ["--workers", "1", "--batch-size", "2", "--insert-batch-size", "2"]
"""Small batches, so that the journal is longer than a page of the disk."""


@pytest.fixture
def space() -> Iterator[Mounts]:
    """Where file systems can be mounted that only the test sees."""
    with mounts() as made:
        yield made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("full") / "pictures", PICTURES)


@pytest.fixture(scope="module")
def truth(pictures: Path) -> dict[str, str]:
    """What an undisturbed job leaves: key -> digest of its vector."""
    penstock.embed_images(pictures, to=str(pictures.parent / "rows.db"), workers=1, progress="none")
    return digest(pictures.parent, pictures)


def fill(place: Path) -> Path:
    """Write until nothing more fits; the file that is in the way."""
    ballast = place / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for nbytes in (1 << 20, 4096):
            with suppress(OSError):
                while file.write(bytes(nbytes)):
                    pass
    assert os.statvfs(place).f_bfree == 0
    return ballast


# -- shared memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "free", "batch"), [("4m", "4.0 MiB", "16"), ("64m", "64.0 MiB", "256")])
def test_too_little_shared_memory_is_refused_before_the_start(
    size: str, free: str, batch: str, space: Mounts, photos: list[Path], tmp_path: Path
) -> None:
    """One line: needed, free, what to set. No segment is left, and nobody died of a SIGBUS."""
    space.tmpfs("/dev/shm", size)
    more = ["--preset", "clip", "--workers", "2", "--batch-size", batch]
    command = jobs.penstock("embed", str(photos[0].parent), "--to", str(tmp_path / "a.db"), *more)
    done = space.run(*command, "--progress", "none")
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert "/dev/shm has no room" in line
    assert f"MiB needed, {free} free" in line
    assert "batch_size" in line
    assert "--shm-size" in line
    assert not list(space.see("/dev/shm").iterdir())


def test_defaults_fit_the_shared_memory_of_a_container(
    space: Mounts, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's 64 MiB are too few for 224 pixels of float32 as usual: batches are smaller, in one line, and it runs."""
    space.tmpfs("/dev/shm", "64m")
    monkeypatch.setenv("PENSTOCK_CORES", "2")
    command = ["embed", str(photos[0].parent), "--to", str(tmp_path / "a.db"), "--preset", "clip"]
    done = space.run(*jobs.penstock(*command, "--progress", "none"))
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("shared memory: /dev/shm has 64.0 MiB")
    assert "batch_size 16, not 32" in line
    assert "--shm-size=" in line
    assert f"written {len(photos)}" in done.stdout


def test_a_stream_of_pixels_fits_the_shared_memory_of_a_container(
    space: Mounts, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for pixels alone: what is said stays, what is not is made smaller."""
    space.tmpfs("/dev/shm", "64m")
    monkeypatch.setenv("PENSTOCK_CORES", "2")
    code = """
import sys, penstock
with penstock.StreamingMultiprocessPreprocessor(preset="clip") as stream:
    print(stream.batch_size, sum(len(batch["ids"]) for batch in stream.preprocess_stream(sys.argv[1:])))
try:
    with penstock.StreamingMultiprocessPreprocessor(preset="clip", batch_size=100, queue_maxsize=10): pass
except OSError as error:
    print(type(error).__name__)
"""
    done = space.run(sys.executable, "-c", code, *map(str, photos))
    assert done.stdout.split() == ["16", str(len(photos)), "SharedMemoryFullError"], done.stderr
    (line,) = done.stderr.splitlines()
    assert "shared memory: /dev/shm has 64.0 MiB" in line


@pytest.mark.kills
def test_shared_memory_that_shrinks_under_a_job_does_it_no_harm(space: Mounts, pictures: Path, tmp_path: Path) -> None:
    """Its pages were reserved at the start: not even a worker that is replaced needs more."""
    space.tmpfs("/dev/shm", "64m")
    folder = tmp_path / "a"
    with started(space.inside(embed(pictures, folder, *FLAGS))) as process:
        wait_for(process, lambda: written(folder) > 0)
        room = os.statvfs(space.see("/dev/shm"))
        space.remount("/dev/shm", f"size={(room.f_blocks - room.f_bfree) * room.f_frsize}")
        assert os.statvfs(space.see("/dev/shm")).f_bfree == 0
        (worker,) = jobs.children(process, "penstock-worker")
        worker.kill()
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    assert stored(folder) == written(folder) == PICTURES


# -- the job's folder -------------------------------------------------------------------------------------------------


def test_a_job_folder_that_cannot_be_written_ends_the_job_and_it_goes_on_later(
    space: Mounts, pictures: Path, truth: dict[str, str], tmp_path: Path
) -> None:
    """Full, then read-only: each error names the file; the books can be read; the end is that of an undisturbed job."""
    folder = tmp_path / "a"
    job = folder / "job"
    job.mkdir(parents=True)
    space.tmpfs(job, "1m")
    seen = space.see(job)
    with started(space.inside(embed(pictures, folder, *FLAGS))) as process:
        wait_for(process, lambda: (seen / "job.json").is_file() and read_status(seen).counts.written >= 20)
        ballast = fill(seen)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, said
    assert f"{job}/journal-2: cannot be written: No space left on device" in said
    assert "run the job again and it resumes" in said
    known = read_status(seen).counts.written
    assert 20 <= known < PICTURES

    ballast.unlink()
    space.remount(job, "ro")
    status = space.run(*jobs.penstock("status", str(job)))
    assert (status.returncode, status.stderr) == (0, "")
    assert f"{known}" in status.stdout
    refused = space.run(*jobs.penstock("resume", str(job)))
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
    assert str(job) in refused.stderr

    space.remount(job, "rw")
    resumed = space.run(*jobs.penstock("resume", str(job)))
    assert resumed.returncode == 0, resumed.stderr
    assert read_status(seen).counts.written == PICTURES
    assert digest(folder, pictures) == truth


@pytest.mark.parametrize("number", [2, 30])
def test_a_write_of_the_books_that_fails_ends_the_job_and_it_goes_on_later(
    number: int, pictures: Path, truth: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The N-th write of a whole job meets a disk that is broken from then on; then the disk is mended."""
    count, write = 0, Disk.write

    def failing(self: Disk, fd: int, data: bytes, offset: int) -> None:
        nonlocal count
        count += 1
        if count >= number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write(self, fd, data, offset)

    def run() -> None:
        own: dict[str, Any] = {"workers": 1, "batch_size": 2, "insert_batch_size": 2, "progress": "none"}
        penstock.embed_images(pictures, to=str(tmp_path / "rows.db"), job=tmp_path / "job", **own)

    monkeypatch.setattr(Disk, "write", failing)
    with pytest.raises(PenstockError, match="Input/output error"):
        run()
    monkeypatch.setattr(Disk, "write", write)
    assert written(tmp_path) < PICTURES
    run()
    assert digest(tmp_path, pictures) == truth
    assert written(tmp_path) == PICTURES


# -- the store --------------------------------------------------------------------------------------------------------


def test_a_full_disk_under_the_store_is_waited_for(
    space: Mounts, pictures: Path, truth: dict[str, str], tmp_path: Path
) -> None:
    """Rows are sent again until there is room; the job ends as if nothing had been."""
    store = tmp_path / "store"
    store.mkdir()
    space.tmpfs(store, "16m")
    more = ["--job", str(tmp_path / "job"), "--progress", "none", *FLAGS]
    command = jobs.penstock("embed", str(pictures), "--to", str(store / "rows.db"), *more)
    with started(space.inside(command)) as process:
        wait_for(process, lambda: written(tmp_path) >= 20)
        ballast = fill(space.see(store))
        before = -1
        while (now := written(tmp_path)) != before:  # what was under way comes to its end
            before = now
            assert not jobs.ends_within(process, 1.0)
        assert now < PICTURES
        ballast.unlink()
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    shutil.copytree(space.see(store) / "rows.db", tmp_path / "rows.db")
    assert digest(tmp_path, pictures) == truth


def test_a_disk_under_the_store_that_stays_full_is_an_error(space: Mounts, tmp_path: Path) -> None:
    """After `retry_for`; it says what the disk said."""
    script = """
        import sys
        import numpy as np
        from penstock.errors import SinkUnavailableError
        from penstock.sinks import MilvusSink, RowBatch
        with MilvusSink(sys.argv[1] + "/rows.db", "images", 256, retry_for=float(sys.argv[2])) as sink:
            rows = lambda first: RowBatch([str(n) for n in range(first, first + 500)], np.ones((500, 256), np.float32),
                                          [{}] * 500)
            try:
                for first in range(0, 100_000, 500):
                    sink.write(rows(first))
            except SinkUnavailableError as error:
                print(error)
    """
    store = tmp_path / "store"
    store.mkdir()
    space.tmpfs(store, "4m")
    done = space.run(sys.executable, "-c", textwrap.dedent(script), str(store), str(patient(0.5)))
    assert "No space left on device" in done.stdout, done.stderr


def failed_for_want_of_room(space: Mounts, pictures: Path, job: Path, scheme: str, folder: Path) -> str:
    """What a job says that has to write into a folder with room for 256 KiB, and writes no row."""
    folder.mkdir()
    space.tmpfs(folder, "256k")
    where = ["--to", f"{scheme}:{folder}", "--job", str(job)]
    failed = space.run(*jobs.penstock("embed", str(pictures), *where, "--progress", "none"))
    assert failed.returncode == 1
    assert read_status(job).counts.remaining == PICTURES
    return failed.stderr


def test_a_full_disk_under_a_bulk_folder_is_an_error_and_the_job_goes_on_later(
    space: Mounts, pictures: Path, tmp_path: Path
) -> None:
    """The error names the folder; nothing is called written that is not."""
    job, parts = tmp_path / "job", tmp_path / "parts"
    said = failed_for_want_of_room(space, pictures, job, "bulk", parts)
    assert f"bulk:{parts} cannot be written: " in said
    assert "No space left on device" in said
    assert f"penstock resume {job}" in said
    space.remount(parts, "size=16m")
    resumed = space.run(*jobs.penstock("resume", str(job)))
    assert resumed.returncode == 0, resumed.stderr
    assert read_manifest(space.see(parts)).rows == PICTURES


def test_a_bulk_folder_without_room_to_merge_its_parts_is_finished_later(space: Mounts, tmp_path: Path) -> None:
    """All rows are there, so the job is done; running it again finishes the folder and does nothing else."""
    script = """
        import sys
        import numpy as np
        from penstock.errors import SinkError
        from penstock.sinks import ParquetBulkSink, RowBatch
        sink = ParquetBulkSink(sys.argv[1], 256)
        sink.open()
        random = np.random.default_rng(0)
        for first in range(0, 300, 100):
            keys = [str(number) for number in range(first, first + 100)]
            sink.write(RowBatch(keys, random.random((100, 256), np.float32), [{}] * 100))
        try:
            sink.close()
        except SinkError as error:
            print(error)
    """
    space.tmpfs(tmp_path, "600k")
    done = space.run(sys.executable, "-c", textwrap.dedent(script), str(tmp_path))
    assert f"bulk:{tmp_path} cannot be written: " in done.stdout, done.stderr
    seen = space.see(tmp_path)
    assert not is_finished(seen)
    space.remount(tmp_path, "size=16m")
    with ParquetBulkSink(seen, 256) as sink:
        assert sink.count() == 300
    assert read_manifest(seen).rows == 300


def test_a_full_disk_under_a_parquet_data_set_is_an_error_and_the_job_goes_on_later(
    space: Mounts, pictures: Path, tmp_path: Path
) -> None:
    """While rows are written, and while they are published: readers see nothing before there was room for all."""
    job, rows = tmp_path / "job", tmp_path / "rows"
    said = failed_for_want_of_room(space, pictures, job, "parquet", rows)
    assert f"{rows} cannot be written: No space left on device" in said
    staged = PICTURES * 512 * 4
    for size, returned in ((staged * 3 // 2, 1), (16 << 20, 0)):
        assert not (space.see(rows) / "_SUCCESS.json").exists()
        space.remount(rows, f"size={size}")
        resumed = space.run(*jobs.penstock("resume", str(job)))
        assert resumed.returncode == returned, resumed.stderr
    assert json.loads((space.see(rows) / "_SUCCESS.json").read_text())["rows"] == PICTURES
    assert not (space.see(rows) / "_staging").exists()


def test_a_finished_job_finishes_its_bulk_folder(pictures: Path, tmp_path: Path) -> None:
    """As a death after the last row leaves it: everything written, nothing merged."""
    own: dict[str, Any] = {"to": f"bulk:{tmp_path / 'parts'}", "job": tmp_path / "job", "progress": "none"}
    penstock.embed_images(pictures, workers=1, **own)
    (tmp_path / "parts" / "manifest.json").unlink()
    again = penstock.embed_images(pictures, workers=1, **own)
    assert (again.accounting.read, list(again.stages)) == (0, [])
    assert read_manifest(tmp_path / "parts").rows == PICTURES
