"""A sink outside of the package, in one file: rows in an SQLite database."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock import ImageEmbeddingPipeline, embed_images
from penstock.engine.cli import main
from penstock.engine.journal import read_status
from penstock.errors import ConfigError, StoreChangedError
from penstock.sinks import Sink, SinkOptions, make_sink, read_manifest
from penstock.testing.sinks import DIMENSION, StoreContract, make_rows
from penstock.tests.whole_jobs import draw_folder, started, wait_for
from penstock.tests.whole_jobs import penstock as command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_plugins")]

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "embedder": "gist:32"}


def rows_in(path: Path) -> int:
    """Rows in the database; 0 while there is none."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as database:
        made = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'rows'").fetchone()[0]
        return int(database.execute("SELECT count(*) FROM rows").fetchone()[0]) if made else 0


class TestSqlite(StoreContract):
    """The contract, by its scheme."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'rows #1.sqlite'}"

    def make(self, place: Any, note: str = "") -> Sink:
        return make_sink(place, SinkOptions(dimension=DIMENSION, note=note))

    def test_collections_of_one_file_are_apart(self, place: str) -> None:
        """Overwriting one leaves the other."""
        one, other = SinkOptions("one", DIMENSION), SinkOptions("other", DIMENSION)
        for options, count in ((one, 5), (other, 3), (SinkOptions("one", DIMENSION, mode="overwrite"), 2)):
            with make_sink(place, options) as sink:
                sink.write(make_rows(count))
        for options, count in ((one, 2), (other, 3)):
            with make_sink(place, options) as sink:
                assert sink.count() == count


@pytest.mark.parametrize(
    ("uri", "settings", "words"),
    [
        ("sqlite:", {}, "write sqlite:FILE"),
        ("sqlite:no/such/folder/rows.db", {}, "does not exist"),
        ("sqlite:rows.db", {"partition": "p"}, "partition: sqlite:rows.db has none"),
        ("sqlite:rows.db", {"fields": {"year": "int64"}}, "fields: sqlite:rows.db has none"),
    ],
)
def test_what_it_does_not_have_is_refused_before_anything_starts(
    uri: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        ImageEmbeddingPipeline(to=uri, **settings)


@pytest.mark.kills
def test_a_job_that_is_killed_goes_on_into_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command, from another folder; it says what to do next, and that does it."""
    pictures = draw_folder(tmp_path / "pictures", 60)
    store, job = tmp_path / "rows.sqlite", tmp_path / "job"
    arguments = [str(pictures), "--to", f"sqlite:{store}", "--job", str(job), "--workers", "1", "--batch-size", "4"]
    with started(command("embed", *arguments, "--insert-batch-size", "4", "--progress", "none")) as process:
        wait_for(process, lambda: rows_in(store) >= 8)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(["resume", str(job), "--progress", "none"]) == 0
    assert f"search it: penstock search sqlite:{store} IMAGE" in capsys.readouterr().out
    counts = read_status(job).counts
    assert (counts.written, counts.remaining) == (counts.total, 0)
    assert rows_in(store) == counts.total
    query = str(sorted(pictures.iterdir())[3])
    assert main(["search", f"sqlite:{store}", query, "-k", "1"]) == 0
    assert query in capsys.readouterr().out


def test_another_file_in_its_place_is_noticed(tmp_path: Path, photos: list[Path]) -> None:
    """As with every store that keeps the note of its first writer."""
    how: dict[str, Any] = {"to": f"sqlite:{tmp_path / 'rows.db'}", "job": tmp_path / "job", "progress": "none", **SMALL}
    embed_images(photos[:4], **how)
    (tmp_path / "rows.db").unlink()
    with pytest.raises(StoreChangedError, match="is not there any more"):
        embed_images(photos[:4], **how)
    assert embed_images(photos[:4], **how, redo=True).accounting.written == 4


def test_the_installed_package_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    assert "installed: sqlite (penstock-example-plugins 1.0)" in capsys.readouterr().out


def test_it_is_one_of_several_stores(tmp_path: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Beside one that cannot be searched: both have all rows, and a search asks the one that can."""
    stores = [f"bulk:{tmp_path / 'parts'}", f"sqlite:{tmp_path / 'rows.db'}"]
    how: dict[str, Any] = {"job": tmp_path / "job", "progress": "none", **SMALL}
    assert embed_images(photos[:6], to=stores, **how).accounting.written == 6
    assert embed_images(photos[:6], to=stores, **how).accounting.written == 0
    assert (rows_in(tmp_path / "rows.db"), read_manifest(tmp_path / "parts").rows) == (6, 6)
    with ImageEmbeddingPipeline(to=stores, **SMALL) as pipeline:
        assert pipeline.search(photos[2], 1)[0].path == str(photos[2])
    (tmp_path / "rows.db").unlink()
    with pytest.raises(StoreChangedError, match="rows to sqlite:"):
        embed_images(photos[:6], to=stores, **how)
