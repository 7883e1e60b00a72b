"""Whole jobs over pictures that lie packed in tars and tables: the same vectors as from files, and whole books."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from penstock.engine.cli import main
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.journal import read_status
from penstock.preprocess.sandbox import sandbox
from penstock.sinks import MilvusSink, row_key
from penstock.tests.packed import FLAGS, digests, picture, run, write_tar
from penstock.tests.whole_jobs import penstock as command
from penstock.tests.whole_jobs import started, stored, wait_for, written

pytestmark = pytest.mark.slow

COUNT = 120


class Packed(Protocol):
    """Pictures by their names, packed into something that is one source."""

    spec: str

    def pack(self, pictures: Mapping[str, bytes | None]) -> None:
        """Write them."""

    def key(self, name: str) -> str:
        """By which the job knows one."""
        ...


def put(path: Path, new: Path) -> None:
    """A new file in the place of the old one, unless they are the same."""
    if path.exists() and path.read_bytes() == new.read_bytes():
        new.unlink()
    else:
        new.replace(path)


class Tars:
    """Three tars, each with a third of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.spec = f"wds:{folder}/s-{{0..2}}.tar"

    def pack(self, pictures: Mapping[str, bytes | None]) -> None:
        for number in range(3):
            mine = [(f"{name}.png", data or b"") for name, data in pictures.items() if int(name) % 3 == number]
            path = self._folder / f"s-{number}.tar"
            put(path, write_tar(path.with_suffix(".new"), mine))

    def key(self, name: str) -> str:
        return f"{self._folder}/s-{int(name) % 3}.tar!{name}.png"


class Parquet:
    """Three files with groups of eight rows, whose keys are the names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.spec = f"parquet:{folder}/s-*.parquet?image=image&key=id"

    def pack(self, pictures: Mapping[str, bytes | None]) -> None:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        for number in range(3):
            mine = [(name, data) for name, data in pictures.items() if min(int(name) // 320, 2) == number]
            columns = {"id": [name for name, _ in mine], "image": pa.array([data for _, data in mine], pa.binary())}
            path = self._folder / f"s-{number}.parquet"
            pq.write_table(pa.table(columns), path.with_suffix(".new"), row_group_size=8)
            put(path, path.with_suffix(".new"))

    def key(self, name: str) -> str:
        return name


class Lance:
    """A Lance table whose keys are the names, in fragments of forty rows."""

    def __init__(self, folder: Path) -> None:
        self.spec = f"{folder}/t.lance?image=image&key=id"
        self._path = folder / "t.lance"

    def pack(self, pictures: Mapping[str, bytes | None]) -> None:
        pa, lance = pytest.importorskip("pyarrow"), pytest.importorskip("lance")
        table = pa.table({"id": [*pictures], "image": pa.array([*pictures.values()], pa.binary())})
        if not self._path.exists():
            lance.write_dataset(table, self._path, max_rows_per_file=40)
        else:
            merged = lance.dataset(self._path).merge_insert("id")
            merged.when_matched_update_all("source.image != target.image").when_not_matched_insert_all().execute(table)

    def key(self, name: str) -> str:
        return name


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes | None]:
    """By names in order, evenly over a thousand."""
    return {f"{number * 8:03}": picture(number) for number in range(COUNT)}


@pytest.fixture(scope="session")
def loose(pictures: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The digests of their vectors, in the same order, as a job over files makes them."""
    folder = tmp_path_factory.mktemp("loose")
    (folder / "files").mkdir()
    for name, data in pictures.items():
        (folder / "files" / f"{name}.png").write_bytes(data)
    run(str(folder / "files"), folder / "job")
    return [*digests(folder / "job", [f"{folder}/files/{name}.png" for name in pictures]).values()]


@pytest.fixture(params=[Tars, Parquet, Lance])
def packed(request: pytest.FixtureRequest, tmp_path: Path, pictures: dict[str, bytes | None]) -> Packed:
    (tmp_path / "packed").mkdir()
    made: Packed = request.param(tmp_path / "packed")
    made.pack(pictures)
    return made


@pytest.mark.kills
def test_a_job_that_is_killed_goes_on_and_ends_as_one_over_files(
    packed: Packed,
    pictures: dict[str, bytes],
    loose: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the middle of a tar, or of a group of rows; another run has nothing left to do."""
    killed, job = tmp_path / "killed", tmp_path / "killed" / "job"
    killed.mkdir()
    arguments = [packed.spec, "--to", str(killed / "rows.db"), "--job", str(job), *FLAGS]
    with started(command("embed", *arguments)) as process:
        wait_for(process, lambda: written(killed) >= 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 20 <= written(killed) < COUNT
    assert main(["resume", str(job), "--progress", "none"]) == 0
    assert main(["resume", str(job)]) == 0
    assert f"finished already: {COUNT} entries: {COUNT} written" in capsys.readouterr().out
    assert stored(killed) == COUNT
    assert [*digests(killed, [packed.key(name) for name in pictures]).values()] == loose


def test_an_update_does_what_is_new_and_changed(
    packed: Packed, pictures: dict[str, bytes | None], tmp_path: Path
) -> None:
    """What is unchanged is in files that have not changed, and is left alone."""
    run(packed.spec, tmp_path / "a")
    keys = [packed.key(name) for name in ("000", "960", "952")]
    before = digests(tmp_path / "a", keys)
    packed.pack({**pictures, "960": picture(1000), "952": picture(1001)})
    assert run(packed.spec, tmp_path / "a").accounting.read == 0
    report = run(packed.spec, tmp_path / "a", update=True)
    assert (report.accounting.dead, report.extra["job"]["entries"]) == (0, COUNT + 1)
    assert 2 <= report.accounting.written < COUNT
    after = digests(tmp_path / "a", keys)
    assert {key for key in after if after[key] != before.get(key)} == {*keys[1:]}


@pytest.mark.parametrize("packed", [Tars, Parquet], indirect=True)
def test_a_retry_does_dead_letters_again(
    packed: Packed, pictures: dict[str, bytes | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture that is none; others whose file had changed, and is as it was again."""
    packed.pack({**pictures, "008": b"no picture"})
    (changed,) = [path for path in (tmp_path / "packed").iterdir() if path.name.startswith("s-1.")]
    status, begun = changed.stat(), JobCheckpoint.starts
    with pytest.MonkeyPatch.context() as patch:  # between the listing and the first read

        def touch(self: JobCheckpoint) -> None:
            os.utime(changed, ns=(0, 0))
            begun(self)

        patch.setattr(JobCheckpoint, "starts", touch)
        report = run(packed.spec, tmp_path / "a", max_failures=1.0)
    assert report.accounting.dead == COUNT // 3 + 1
    letters = [json.loads(line) for line in (tmp_path / "a/job/dead-letters.jsonl").read_text().splitlines()]
    assert sum("has changed since it was listed" in letter["message"] for letter in letters) == COUNT // 3
    os.utime(changed, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert main(["retry", str(tmp_path / "a/job"), "--error", "ReadError"]) == 0
    counts = read_status(tmp_path / "a/job").counts
    assert (counts.written, counts.dead, counts.remaining) == (COUNT - 1, 1, 0)


def test_metadata_are_stored_with_the_rows(tmp_path: Path) -> None:
    """From sidecars in a tar, from columns of a table; also by a run that goes on."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sidecars = [
        (f"{n}.{kind}", data) for n in range(4) for kind, data in (("json", b'{"n": %d}' % n), ("png", picture(n)))
    ]
    write_tar(tmp_path / "a.tar", sidecars)
    pq.write_table(pa.table({"n": range(4), "image": [picture(n) for n in range(4)]}), tmp_path / "a.parquet")
    for source, key in (("a.tar", "a.tar!{}.png"), ("a.parquet?columns=n", "a.parquet#{:09}")):
        place = tmp_path / key[:4]
        keys = [row_key(f"{tmp_path}/{key.format(n)}") for n in range(4)]
        for settings in ({}, {"redo": True}):
            run(f"{tmp_path}/{source}", place, **settings)
            with MilvusSink(str(place / "rows.db"), "images") as sink:
                rows = sink.get(keys)
            assert [rows[each]["n"] for each in keys] == [0, 1, 2, 3]


@pytest.mark.skipif(not sandbox.means(), reason="this kernel has no means of a sandbox")
def test_confined_workers_make_the_same_vectors(
    packed: Packed, pictures: dict[str, bytes | None], loose: list[str], tmp_path: Path
) -> None:
    report = run(packed.spec, tmp_path / "a", sandbox=True)
    assert report.accounting.written == COUNT
    assert [*digests(tmp_path / "a", [packed.key(name) for name in pictures]).values()] == loose
    ceiling = report.extra["memory_ceiling"]
    assert "pictures in memory" in ceiling["parts"]
    is_counted = isinstance(packed, Tars) or packed.spec.startswith("parquet:")
    assert ("source" in ceiling["parts"]) == is_counted
    assert any("of the table" in said for said in ceiling["uncounted"]) != is_counted
