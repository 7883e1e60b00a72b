"""Pictures that are no files: read by reference, by a fetcher that the worker opens itself."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from penstock.engine.core.policies import is_transient
from penstock.engine.workers.pictures import PictureCodec
from penstock.errors import ConfigError, ItemError, ReadError, TooLargeError
from penstock.fetch import Fetchers
from penstock.preprocess.worker.protocol import Source, decode_task, encode_task
from penstock.references import Fetcher, Locator, Reference, Version
from penstock.tests import folder_place
from penstock.tests.folder_place import FolderFetcher, reference
from penstock.tests.test_pool import MakePool, expected, make_pool

__all__ = ["make_pool"]


def test_a_reference_travels_with_its_task_among_paths_and_bytes() -> None:
    """Any text as ref, and the whole version; its neighbours are untouched."""
    odd = Reference(Locator("a.b:c", '{"x": "\\u00e9\\""}'), "é/ß\n\udcff", Version(2**40, -5, '"etag"'))
    sources: list[Source] = ["/a/\udcff.jpg", odd, b"bytes", ReadError("no"), Reference(Locator("a:b"), "")]
    message = encode_task(3, 9, sources)
    task = decode_task(b"".join(map(bytes, message.frame)))
    assert task.sources[:2] == sources[:2]
    assert bytes(task.sources[2]) == b"bytes"  # type: ignore[arg-type]
    assert isinstance(task.sources[3], ReadError)
    assert task.sources[4] == sources[4]


def test_a_fetcher_is_opened_once_and_reads_what_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are read beside it, as ever."""
    opened: list[str] = []

    def noted(options: str) -> Fetcher:
        opened.append(options)
        return FolderFetcher(options)

    monkeypatch.setattr(folder_place, "open_folder", noted)
    (tmp_path / "x").write_bytes(b"content")
    fetchers = Fetchers(1000)
    assert fetchers.read(reference(tmp_path, "x")) == b"content"
    assert fetchers.read(reference(tmp_path, "x", 7, 0, "7")) == b"content"
    assert fetchers.read(str(tmp_path / "x")) == b"content"
    assert opened == [str(tmp_path)]


def failure(wanted: Reference, max_bytes: int = 1000) -> ItemError:
    with pytest.raises(ItemError) as info:
        Fetchers(max_bytes).read(wanted)
    return info.value


def test_whatever_a_fetcher_raises_is_an_error_of_its_picture(tmp_path: Path) -> None:
    """With its words, without secrets; what may go by itself is known as such, so that a policy can try again."""
    (tmp_path / "x").write_bytes(b"content")
    changed = failure(reference(tmp_path, "x", -1, 0, "8"))
    assert str(changed) == "'x' has changed since it was listed"
    gone = failure(reference(tmp_path, "y"))
    assert isinstance(gone, ReadError)
    assert gone.errno == errno.ENOENT
    assert "'y' cannot be read: FileNotFoundError" in str(gone)
    slow = failure(reference(tmp_path, "slow down"))
    assert is_transient(slow)
    assert not is_transient(gone)
    assert "secret" not in str(slow)


@pytest.mark.parametrize("size", [-1, 7])
def test_what_is_too_large_is_refused(tmp_path: Path, size: int) -> None:
    """Unread where its size is known, and whatever the fetcher hands out."""
    if size < 0:
        (tmp_path / "x").write_bytes(b"content")
    assert isinstance(failure(reference(tmp_path, "x", size), 6), TooLargeError)


@pytest.mark.parametrize("factory", ["nowhere.at.all:f", "json:nothing", "", "json"])
def test_a_locator_that_names_nothing_says_so(factory: str) -> None:
    """At the job's start as a wrong setting, and in a worker as the error of each picture."""
    with pytest.raises(ConfigError, match="what reads its pictures"):
        Locator(factory).open()
    assert "what reads its pictures" in str(failure(Reference(Locator(factory), "x")))


def test_a_worker_says_which_reference_it_is_busy_with(tmp_path: Path) -> None:
    """In dumps and stall reports: as of a path, its name."""
    assert PictureCodec().describe(reference(tmp_path, "a/b")) == "'a/b'"


@pytest.mark.slow
def test_a_worker_reads_references_itself(make_pool: MakePool, photos: list[Path]) -> None:
    """The pixels are those of the file; what cannot be read costs its own row only."""
    pool = make_pool(workers=1)
    folder = photos[0].parent
    sources: list[Source] = [reference(folder, photos[0].name), reference(folder, "gone.jpg"), str(photos[1])]
    slot = pool.process(sources)
    assert [row.position for row in slot.rows] == [0, 2]
    assert [(position, type(error)) for position, error in slot.failures] == [(1, ReadError)]
    assert slot.failures[0][1].sha256 is None
    assert abs(slot.pixels - expected([photos[0], photos[1]])).max() < 1e-5
    slot.release()
