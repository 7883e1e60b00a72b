"""Many paths named one by one: what they cost, what is held of them, and that none is done twice."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import chdir
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import ConfigError, Report, ServiceConfig, embed_images
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.fingerprints import begun_with
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.images.entries import batches_of
from penstock.engine.jobs.images.inputs import pictures_of
from penstock.engine.journal import read_status
from penstock.engine.sources import Broken, FileSource, Item
from penstock.engine.sources.paths import absolute
from penstock.errors import SourceError


def make_files(folder: Path, count: int) -> list[str]:
    """Empty files with the names of pictures, a hundred in a folder."""
    paths = [folder / f"{number // 100:03}" / f"IMG_{number:06}.jpg" for number in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [str(path) for path in paths]


def calls(work: Callable[[], object]) -> int:
    """How many functions it calls: time, on a machine that is never busy."""
    number = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal number
        del frame, argument
        number += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return number


def read(specs: Iterable[str]) -> int:
    """How many entries there are."""
    return sum(1 for _ in FileSource(list(specs)))


def test_each_of_many_paths_costs_what_each_of_few_does(tmp_path: Path) -> None:
    """As files, and as folders; no path is held against all that came before it."""
    paths = make_files(tmp_path, 800)
    assert calls(lambda: read(paths)) < 4.4 * calls(lambda: read(paths[:200]))
    folders = [str(tmp_path / "many" / str(number)) for number in range(400)]
    for folder in folders:
        Path(folder).mkdir(parents=True)
    assert calls(lambda: read(folders)) < 4.4 * calls(lambda: read(folders[:100]))


def test_little_is_held_of_each_path_of_a_list(tmp_path: Path) -> None:
    """Under 300 bytes beside the user's own list, also where a path is written otherwise than it lies."""
    paths = make_files(tmp_path / "real", 3000)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    linked = [path.replace("/real/", "/link/") for path in paths]
    for named in (paths, linked):
        tracemalloc.start()
        assert read(named) == 3000
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert held / 3000 < 300


def test_pictures_of_a_generator_are_not_held(tmp_path: Path) -> None:
    """However many there are: the peak of twenty thousand is that of two thousand."""

    def peak(count: int) -> int:
        tracemalloc.start()
        paths = (f"{tmp_path}/{number}.jpg" for number in range(count))
        assert (
            sum(
                len(outcome.value.pictures)
                for outcome in batches_of(pictures_of(paths, None, None, "embed_images"), 32)
            )
            == count
        )
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(100)
    assert peak(20_000) < peak(2_000) + 100_000


def test_a_path_that_is_named_twice_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is spelled, and whether it lies in a folder that was named before, or after it."""
    paths = make_files(tmp_path / "real", 3)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    spelled = ["real/000/IMG_000000.jpg", "link/000/IMG_000000.jpg", "./real//000/../000/IMG_000000.jpg", paths[0]]
    for specs in (spelled, [*spelled, "real"], ["real", *spelled], [paths[1], "real/*/*", *paths, "link"]):
        keys = [os.path.realpath(entry.key) for entry in FileSource(specs)]
        assert len(keys) == len(set(keys)) == (1 if specs is spelled else 3)


def test_a_folder_in_an_earlier_one_among_many_is_not_read_again(tmp_path: Path) -> None:
    """It is found by what lies above it."""
    make_files(tmp_path, 300)
    assert read([f"{tmp_path}/{number:03}" for number in (2, 0)] + [str(tmp_path), f"{tmp_path}/001"]) == 300


def test_a_picture_that_is_missing_among_others_is_a_dead_letter(tmp_path: Path) -> None:
    """One of a million may go away at any time; alone, or a folder, it is a typing error."""
    paths = make_files(tmp_path, 2)
    gone = f"{tmp_path}/gone.jpg"
    entries = list(FileSource([gone, *paths]))
    assert [type(entry) for entry in entries] == [Broken, Item, Item]
    assert [type(entry) for entry in FileSource([*paths, f"{tmp_path}/gone[1].jpg"])] == [Item, Item, Broken]
    assert len(list(FileSource([*paths, f"{tmp_path}/000/IMG_00000[01].jpg"]))) == 2
    for specs in ([gone], [gone, gone], [*paths, f"{tmp_path}/gone"], [*paths, f"{tmp_path}/*.jpg"]):
        with pytest.raises(SourceError, match=r"there is no such file or folder|matches nothing"):
            FileSource(specs)


def test_what_is_looked_at_later_is_refused_when_it_is_read(tmp_path: Path) -> None:
    """A job that goes on with its listing may never need it."""
    source = FileSource(f"{tmp_path}/gone", later=True)
    with pytest.raises(SourceError, match="there is no such file or folder"):
        list(source)


@pytest.mark.parametrize("here", ["/", None])
@given(name=st.text("/.a\n", max_size=8))
@settings(max_examples=300, deadline=None)
def test_a_name_in_the_usual_spelling_is_made_absolute_as_pathlib_does(here: str | None, name: str) -> None:
    """The short way and the long way give the same key."""
    with chdir(here or tempfile.gettempdir()):
        usual = os.path.realpath(name) if ".." in Path(name).parts else str(Path(name).absolute())
        assert absolute(name) == usual


def test_a_tuple_and_path_objects_are_as_good_as_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All name files, so books can be kept of them."""
    seen: list[FileSource] = []

    def run_job(config: ServiceConfig, source: FileSource, **how: Any) -> Report:
        seen.append(source)
        return Report()

    monkeypatch.setattr("penstock.engine.jobs.images.embed.run_job", run_job)
    paths = make_files(tmp_path, 2)
    for source in (paths, tuple(paths), list(map(Path, paths)), [*paths, *paths]):
        embed_images(source, to="rows.db")
    assert [[entry.key for entry in source] for source in seen] == [paths] * 4


def test_books_of_a_generator_are_refused(tmp_path: Path) -> None:
    """Nothing tells its pictures apart from run to run; it must not look as if the job could be resumed."""
    paths = make_files(tmp_path, 2)
    with pytest.raises(ConfigError, match=r"job: .* a folder or a list of paths"):
        embed_images((path for path in paths), to=str(tmp_path / "rows.db"), job=tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_a_job_of_many_paths_keeps_them_in_a_file_and_goes_on(tmp_path: Path) -> None:
    """Its manifest stays short, ``resume`` and ``resume --update`` know its source, another list is another job."""
    paths = make_files(tmp_path / "pictures", 300)
    config = ServiceConfig(to=str(tmp_path / "rows.db"), job=tmp_path / "job")
    with JobCheckpoint(config, make_plan(config), FileSource(paths)) as books:
        assert books.remaining == 300
    assert (tmp_path / "job" / "job.json").stat().st_size < 5000
    assert [json.loads(line) for line in (tmp_path / "job" / "sources").read_text().splitlines()] == paths
    Path(paths[7]).unlink()
    for update in (False, True):
        went_on, source = begun_with(read_status(tmp_path / "job"), update=update)
        with JobCheckpoint(went_on, make_plan(config), source) as books:
            assert sum(isinstance(entry, Item) for entry in books.entries()) == (299 if update else 300)
    with pytest.raises(ConfigError, match=r"source was .*\(300 in all, digest"):
        JobCheckpoint(config, make_plan(config), FileSource([*paths[1:], paths[0]]))
