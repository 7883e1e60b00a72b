"""Several stores at once: what a tee answers, and jobs into two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError, embed_images
from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.journal import read_status
from penstock.errors import RowRefusedError, SinkUnavailableError, StoreChangedError
from penstock.sinks import (
    NullSink,
    ParquetBulkSink,
    RowBatch,
    SinkOptions,
    TeeSink,
    WriteResult,
    make_sink,
    read_manifest,
)
from penstock.testing.sinks import DIMENSION, make_rows
from penstock.tests.whole_jobs import draw_folder

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4, "embedder": "gist:32", "progress": "none"}


class Named(NullSink):
    """One that is told from others by its name, and refuses and fails as it is told."""

    def __init__(self, name: str, refuses: tuple[int, ...] = (), fails: bool = False) -> None:
        super().__init__()
        self.name, self.refuses, self.fails = name, refuses, fails

    @property
    def uri(self) -> str:
        return self.name

    @property
    def fingerprint(self) -> str:
        return self.name

    def write(self, rows: RowBatch) -> WriteResult:
        if self.fails:
            raise SinkUnavailableError(f"{self.name}: gone")
        super().write(rows)
        return WriteResult(
            len(rows) - len(self.refuses), [(index, RowRefusedError("too long")) for index in self.refuses]
        )


def test_a_row_is_written_when_all_have_taken_it() -> None:
    """What one refuses is refused, by its name, and once."""
    with TeeSink([Named("a", (1, 3)), Named("b", (3, 4))]) as tee:
        result = tee.write(make_rows(6))
    assert result.written == 3
    assert [(index, str(error)) for index, error in result.refused] == [
        (1, "a: too long"),
        (3, "a: too long"),
        (4, "b: too long"),
    ]


@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_fails_the_others_finish_their_write(failing: int) -> None:
    """Then it is raised."""
    members = [Named("a"), Named("b")]
    members[failing].fails = True
    with TeeSink(members) as tee, pytest.raises(SinkUnavailableError, match="gone"):
        tee.write(make_rows(6))
    assert members[1 - failing].count() == 6


def test_a_store_is_named_once(tmp_path: Path) -> None:
    """Its rows would be written twice, and counted."""
    uri = f"bulk:{tmp_path}"
    with pytest.raises(ConfigError, match=r"^to: bulk:\S+ collection images is named twice"):
        make_sink([uri, f"{uri}/"], SinkOptions(dimension=DIMENSION))


def test_several_are_said_in_each_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list or a tuple in Python, a list in a file, the option again on the command line; one of a list is one."""
    yaml = tmp_path / "job.yaml"
    yaml.write_text("to: [bulk:a, 'null:']\n")
    several = ("bulk:a", "null:")
    assert ServiceConfig(to=[Path("bulk:a"), "null:"]).to == ServiceConfig.from_yaml(yaml).to == several
    assert ServiceConfig(to=["photos.db"]).to == "photos.db"
    assert ServiceConfig(to=several).shown_to == "bulk:a, null:"
    with pytest.raises(ConfigError, match=r"^to: \['a', 4\] is not allowed: must be an address"):
        ServiceConfig(to=["a", 4])
    assert main(["embed", str(tmp_path), "--to", "null:", "--to", "bulk:"]) == 2
    assert "penstock: --to: 'bulk:' names no folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_into_two_stores_is_one_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command: both have all rows, the end says what to do with each, and `resume` knows both."""
    pictures, job = draw_folder(tmp_path / "pictures", 10), tmp_path / "job"
    stores = [f"bulk:{tmp_path / name}" for name in "ab"]
    command = ["embed", str(pictures), "--to", stores[0], "--to", stores[1], "--job", str(job), "--workers", "1"]
    assert main([*command, "--progress", "none", "--embedder", "gist:32"]) == 0
    out = capsys.readouterr().out
    assert f"penstock import {tmp_path / 'a'} " in out
    assert f"penstock import {tmp_path / 'b'} " in out
    assert [read_manifest(tmp_path / name).rows for name in "ab"] == [10, 10]
    assert read_status(job).counts.written == 10
    assert main(["resume", str(job)]) == 0
    assert "finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_another_second_store_is_noticed(tmp_path: Path) -> None:
    """The message names it; and other stores are another job."""
    pictures = draw_folder(tmp_path / "pictures", 5)
    how: dict[str, Any] = {"job": tmp_path / "job", **SMALL}
    stores = [f"bulk:{tmp_path / name}" for name in "ab"]
    embed_images(pictures, to=stores, **how)
    with pytest.raises(ConfigError, match="was begun otherwise: store was"):
        embed_images(pictures, to=stores[0], **how)
    (tmp_path / "b").rename(tmp_path / "away")
    with pytest.raises(StoreChangedError, match=f"rows to {stores[1]}, .* is not there any more"):
        embed_images(pictures, to=stores, **how)
    with ParquetBulkSink(tmp_path / "b", 512) as other:
        other.write(RowBatch(["x"], make_rows(1).vectors.repeat(64, 1), [{}]))
    with pytest.raises(StoreChangedError, match=f"rows to {stores[1]}, .* is another one, with 1 row"):
        embed_images(pictures, to=stores, **how)
