"""Jobs over what a Python program makes: books of pictures whose keys are the same in every run."""

from __future__ import annotations

import json
import signal
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penstock import ConfigError, Report, ServiceConfig, embed_images
from penstock.engine.cli import main
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.fingerprints import begun_with
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.images.keyed_pictures import KeyedPictures
from penstock.engine.journal import read_status
from penstock.engine.sources import Item, Source, Version
from penstock.errors import DecodeError, ReadError, SourceError, SourceOrderError
from penstock.sinks import row_key
from penstock.testing.sources import UnnamedSourceContract, listing
from penstock.tests.drawn import encoded
from penstock.tests.whole_jobs import digest_of, started, stored, wait_for, written

SMALL: dict[str, Any] = {"batch_size": 8, "insert_batch_size": 16, "workers": 2, "progress": "none"}


def pixels(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def png(seed: int) -> bytes:
    return encoded(Image.fromarray(pixels(seed)), "PNG")


class TestKeyed(UnnamedSourceContract):
    """The contract, for pairs in the order of their keys."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        (tmp_path / "x.png").write_bytes(png(4))
        path = str(tmp_path / "x.png")
        pairs = [("a-b", png(1)), ("a/b", pixels(2)), ("é", path)]
        return KeyedPictures([*pairs, Item("ü", data=png(3), version=Version(tag="7"))])


def loaded(*given: Any) -> list[Item]:
    return [item for item in KeyedPictures(list(given)) if isinstance(item, Item)]


def test_a_picture_may_be_anything_that_embed_images_takes() -> None:
    """Also a function, which is called when it is its turn; what comes of that wrongly is this picture's error."""

    def broken() -> bytes:
        raise ValueError("no such row")

    def late() -> bytes:
        return b"late"

    items = loaded(("a", b"bytes"), ("b", Image.fromarray(pixels(1))), ("c", late), ("d", broken), ("e", 3), ("f", "x"))
    assert items[0].data == b"bytes"
    np.testing.assert_array_equal(items[1].data, pixels(1))
    assert items[2].data == b"late"
    assert isinstance(items[3].data, ReadError)
    assert str(items[3].data) == "ValueError: no such row"
    assert isinstance(items[4].data, DecodeError)
    assert (items[5].path, items[5].data) == (str(Path.cwd() / "x"), None)


def test_keys_are_listed_without_making_a_picture() -> None:
    """Nothing is called, and memory does not grow with their number."""

    def never() -> bytes:
        raise AssertionError

    def pairs() -> Iterator[tuple[str, Callable[[], bytes]]]:
        return ((f"{number:06}", never) for number in range(50_000))

    source = KeyedPictures(pairs)
    assert sum(1 for _ in source.parts()) == 50_000
    tracemalloc.start()
    assert sum(1 for _ in source.parts()) == 50_000
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100_000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([b"picture"], "picture 0 must be a pair of a key and a picture, or an Item with a path or data, not b'pict"),
        ([("a", b""), ("b",)], "picture 1 must be a pair"),
        ([(1, b"x")], "the key of picture 0 must be a text, not 1"),
        ([("", b"x")], "the key of picture 0 must be a text, not ''"),
        ([("\udcff", b"x")], "the key of picture 0 must be a text"),
        ([("a", b"x"), ("a", b"y")], "pictures 0 and 1 have the same key 'a'"),
        ([Item("a")], "picture 0 must be a pair"),
    ],
)
def test_what_is_no_pair_with_a_key_is_refused_by_its_position(given: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"stable_keys: {message}"):
        list(KeyedPictures(given))


@pytest.mark.parametrize("given", ["folder", Path("folder"), b"bytes", 3, KeyedPictures([])])
def test_what_holds_no_pairs_is_refused(given: Any, tmp_path: Path) -> None:
    """A folder needs no keys from its user."""
    with pytest.raises(ConfigError, match="takes pairs of a key and a picture, or a function that makes them, not"):
        embed_images(given, to=str(tmp_path / "rows.db"), stable_keys=True)


def books(given: Any, folder: Path, **settings: Any) -> JobCheckpoint:
    folder.mkdir(exist_ok=True)
    config = ServiceConfig(to=str(folder / "rows.db"), job=folder / "job", **settings)
    return JobCheckpoint(config, make_plan(config), KeyedPictures(given))


def test_a_generator_cannot_be_listed_but_can_go_on(tmp_path: Path) -> None:
    """The first run reads twice, so it needs the function; the others read once."""
    pairs = [(f"{number}", b"x") for number in range(5)]
    with pytest.raises(ConfigError, match=r"can be read only once.*embed_images\(pictures, ...\), not"):
        books(iter(pairs), tmp_path)
    with books(lambda: iter(pairs), tmp_path) as first:
        assert [entry.key for entry in first.entries()] == ["0", "1", "2", "3", "4"]
        first._folder.written([0, 2])  # pyright: ignore[reportPrivateUsage]
    with books(iter(pairs), tmp_path) as second:
        assert [(entry.ordinal, entry.key) for entry in second.entries()] == [(1, "1"), (3, "3"), (4, "4")]


def test_other_keys_in_a_later_run_are_named(tmp_path: Path) -> None:
    """The first that differs, of those that are not done, and what was there; nothing is embedded under a wrong key."""
    with books([("a", b"x"), ("b", b"x"), ("c", b"x")], tmp_path) as first:
        first._folder.written([0])  # pyright: ignore[reportPrivateUsage]
    with books([("c", b"x"), ("b", b"x"), ("a", b"x")], tmp_path) as other:
        entries = other.entries()
        assert next(entries).key == "b"
        with pytest.raises(SourceError, match="picture 2 was 'c' when the job listed them, and now it is 'a'"):
            next(entries)
    with (
        books([("a", b"x")], tmp_path) as fewer,
        pytest.raises(SourceError, match="picture 1 was 'b' when the job listed them, and now there is none"),
    ):
        next(fewer.entries())


def test_an_update_finds_what_is_new_changed_and_gone(tmp_path: Path) -> None:
    """Anywhere where keys come in their order; at the end in any other. Other bytes, or an item's other version."""
    version = Version(tag="1")
    old = [("a", b"xx"), ("b", b"xx"), Item("c", data=b"x", version=version), ("d", b"x")]
    with books(old, tmp_path) as first:
        first._folder.written(range(4))  # pyright: ignore[reportPrivateUsage]
    new = [("a", b"xx"), ("aa", b"x"), ("b", b"x"), Item("c", data=b"x", version=Version(tag="2"))]
    with books(new, tmp_path, update=True) as second:
        assert [entry.key for entry in second.entries()] == ["aa", "b", "c"]
        assert second.counts.total == 4
    unordered = [("z", b"x"), ("y", b"x")]
    with books(unordered, tmp_path / "u"):
        pass
    with books([*unordered, ("a", b"x")], tmp_path / "u", update=True) as longer:
        assert longer.counts.total == 3
    with pytest.raises(SourceOrderError, match="'y' after 'z', which is not the order of their bytes"):
        books([("0", b"x"), *unordered], tmp_path / "u", update=True)


def test_no_command_can_make_the_pictures_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`resume` says who can; `status` too; `retry` marks what is to be tried again, and leaves it to the program."""
    with books([("a", b"x"), ("b", b"y")], tmp_path) as first:
        first._folder.dead([1])  # pyright: ignore[reportPrivateUsage]
    job = tmp_path / "job"
    with pytest.raises(ConfigError, match="is about pictures that a Python program has: let it call embed_images"):
        begun_with(read_status(job))
    assert main(["resume", str(job)]) == 2
    capsys.readouterr()
    assert main(["status", str(job)]) == 0
    assert "to go on: let the program that has the pictures call embed_images" in capsys.readouterr().out
    assert main(["retry", str(job)]) == 0
    assert "1 item to be tried again by the program that has the pictures" in capsys.readouterr().out
    assert read_status(job).counts.dead == 0
    assert main(["retry", str(job)]) == 0
    said = capsys.readouterr().out
    assert "there are no dead letters" in said
    assert "what is not done yet (2 items): let the program that has the pictures call embed_images" in said


def test_the_way_to_books_of_an_iterator_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give \(key, picture\) pairs with stable_keys=True"):
        embed_images(iter([b"x"]), to=str(tmp_path / "rows.db"), job=tmp_path / "job")


def run(given: Any, folder: Path, **settings: Any) -> Report:
    folder.mkdir(exist_ok=True)
    own: dict[str, Any] = {"to": str(folder / "rows.db"), "job": folder / "job"}
    return embed_images(given, stable_keys=True, **own, **SMALL | settings)


def pictures() -> Iterator[tuple[str, Any]]:
    """What a program makes; one of them cannot be used."""
    for number in range(150):
        yield f"row {number:03}", pixels(number) if number % 2 else png(number)
    yield "wrong", b"no picture"


PROGRAM = """
    import sys
    from pathlib import Path
    from penstock.tests.test_job_keyed import pictures, run
    if __name__ == "__main__":
        run(pictures, Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.kills
def test_a_program_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """The same rows as an undisturbed run's, by their keys; what is done is not done again."""
    killed = tmp_path / "killed"
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    with started([sys.executable, str(tmp_path / "program.py"), str(killed)]) as process:
        wait_for(process, lambda: written(killed) >= 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    known = written(killed)
    assert 20 <= known < 150
    report = run(pictures, killed)
    assert (report.extra["job"]["written"], report.extra["job"]["dead"]) == (150, 1)
    assert report.accounting.written <= 150 - known
    run(pictures, tmp_path / "undisturbed")
    keys = [row_key(key) for key, _ in pictures()]
    assert stored(killed) == 150
    assert digest_of(killed, keys) == digest_of(tmp_path / "undisturbed", keys)
    letters = [json.loads(line) for line in (killed / "job" / "dead-letters.jsonl").read_text().splitlines()]
    assert [letter["key"] for letter in letters] == ["wrong"]
    assert run(pictures, killed).accounting.read == 0
    assert len(listing(KeyedPictures(pictures))) == 151
