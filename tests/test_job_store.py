"""The image job and its store: overwriting, partitions, the index wait, metadata files, bulk folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock import ImageEmbeddingPipeline, PipelineFailure, embed_images
from penstock.engine.config.model import ServiceConfig
from penstock.engine.jobs.common.output_paths import dead_letters_path
from penstock.engine.servers import MilvusServer
from penstock.errors import CollectionMismatchError, ConfigError, SourceError
from penstock.sinks import bulk_import, read_manifest
from penstock.tests.waiting import DEADLINE

SMALL: dict[str, Any] = {"workers": 1, "batch_size": 4}


def count(to: str, **settings: Any) -> int:
    with ImageEmbeddingPipeline(to=to, **SMALL, **settings) as pipeline:
        return pipeline.count()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"to": "bulk:"}, "names no folder"),
        ({"to": "bulk:parts", "partition": "p"}, "for the import"),
        ({"to": "bulk:parts", "wait_index": 5}, "for the import"),
        ({"to": "bulk:parts", "fields": {"a": "b"}}, "fields: 'a': 'b' is no type"),
        ({"to": "p.db", "index": "HNWS"}, "did you mean HNSW"),
        ({"to": "p.db", "partition": "p", "partition_key": "k"}, "exclude one another"),
    ],
    ids=str,
)
def test_a_store_that_cannot_be_is_refused_before_anything_starts(settings: dict[str, Any], words: str) -> None:
    """No worker, no connection, no file."""
    with pytest.raises(ConfigError, match=words):
        ImageEmbeddingPipeline(**settings)


def test_dead_letters_of_a_bulk_folder_lie_beside_it() -> None:
    """In it they would be in the way of a copy to the server."""
    assert dead_letters_path(ServiceConfig(to="bulk:a/parts")) == Path("a/parts.dead-letters.jsonl")
    assert dead_letters_path(ServiceConfig(to="bulk:~/parts")) == Path.home() / "parts.dead-letters.jsonl"


@pytest.mark.slow
def test_overwriting_replaces_the_collection_once_for_the_life_of_a_pipeline(
    tmp_path: Path, photos: list[Path]
) -> None:
    """The second insert of one pipeline adds to the first; the recipe may be another one."""
    to = str(tmp_path / "p.db")
    embed_images(photos[:6], to=to, config=ServiceConfig(**SMALL))
    with ImageEmbeddingPipeline(to=to, mode="overwrite", image_size=128, **SMALL) as pipeline:
        assert pipeline.insert_images(photos[10:12])
        assert pipeline.insert_images_streaming(photos[12:15])
        assert pipeline.count() == 5
    with pytest.raises(CollectionMismatchError):
        embed_images(photos[:6], to=to, config=ServiceConfig(**SMALL))


@pytest.mark.slow
def test_an_overwriting_job_that_has_nothing_to_write_leaves_the_old_rows(tmp_path: Path, photos: list[Path]) -> None:
    """Here no picture can be read, in a job whose budget that exceeds."""
    to = str(tmp_path / "p.db")
    embed_images(photos[:3], to=to, config=ServiceConfig(**SMALL))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(PipelineFailure):
        embed_images([broken], to=to, config=ServiceConfig(mode="overwrite", max_failures=0, **SMALL))
    assert count(to) == 3


@pytest.mark.slow
def test_a_metadata_file_fills_fields_and_is_reported(tmp_path: Path, photos: list[Path]) -> None:
    """A value that does not fit its field is a dead letter; the index is waited for and told."""
    to, table = str(tmp_path / "p.db"), tmp_path / "albums.csv"
    lines = [f"{photos[0]},2001,pets", f"{photos[1]},soon,pets", "/nowhere.jpg,1999,x"]
    table.write_text("\n".join(["path,year,album", *lines]))
    settings: dict[str, Any] = {"fields": {"year": "int64"}, "metadata": table, "index": "HNSW", "wait_index": 60}
    report = embed_images(photos[:4], to=to, **settings, **SMALL)
    assert (report.accounting.written, report.accounting.dead) == (3, 1)
    assert report.extra["metadata"] == {"rows": 3, "unmatched_rows": 1, "pictures_without": 2}
    assert (report.extra["index"]["rows"], report.extra["index"]["indexed"]) == (3, 3)
    (letter,) = map(json.loads, (tmp_path / "p.dead-letters.jsonl").read_text().splitlines())
    assert letter["key"] == str(photos[1])
    assert "'year' does not fit its field (int64): 'soon'" in letter["message"]
    with ImageEmbeddingPipeline(to=to, **SMALL) as pipeline:
        assert pipeline.search(photos[0], 1)[0].metadata == {"year": 2001, "album": "pets"}


@pytest.mark.slow
def test_a_metadata_file_that_cannot_be_read_stops_the_job_before_it_starts(tmp_path: Path, photos: list[Path]) -> None:
    """Rather than after the first million rows without metadata."""
    table = tmp_path / "m.csv"
    table.write_text("year\n1\n")
    with pytest.raises(SourceError, match="metadata"):
        embed_images(photos[:1], to=str(tmp_path / "p.db"), metadata=table, **SMALL)
    assert not (tmp_path / "p.db").exists()


@pytest.mark.slow
def test_partitions_of_one_collection_are_jobs_of_their_own(tmp_path: Path, photos: list[Path]) -> None:
    """Each counts, searches and overwrites its own rows."""
    to = str(tmp_path / "p.db")
    for name, chosen in (("a", photos[:3]), ("b", photos[3:8]), ("a", photos[8:10])):
        mode = "overwrite" if chosen[0] == photos[8] else "append"
        embed_images(chosen, to=to, partition=name, mode=mode, **SMALL)
    assert [count(to, partition="a"), count(to, partition="b"), count(to)] == [2, 5, 7]


@pytest.mark.slow
def test_a_bulk_folder_is_written_by_the_same_job(tmp_path: Path, photos: list[Path]) -> None:
    """Twice, and each picture is there once; it cannot be searched, and says what to do."""
    to = f"bulk:{tmp_path / 'parts'}"
    for _ in range(2):
        report = embed_images(photos[:10], to=to, **SMALL)
        assert report.accounting.written == 10
    assert read_manifest(tmp_path / "parts").rows == 10
    with ImageEmbeddingPipeline(to=to, **SMALL) as pipeline, pytest.raises(ConfigError, match="penstock import"):
        pipeline.search(photos[0])


@pytest.mark.slow
def test_a_bulk_folder_is_searched_once_it_is_imported(
    tmp_path: Path, photos: list[Path], milvus: MilvusServer
) -> None:
    """By the recipe that came with it: a search needs no settings, another recipe is refused."""
    embed_images(photos[:10], to=f"bulk:{tmp_path}", collection="imported", **SMALL)
    bulk_import(tmp_path, milvus.uri, mode="overwrite", timeout=DEADLINE)
    store: dict[str, Any] = {"to": milvus.uri, "collection": "imported", **SMALL}
    with ImageEmbeddingPipeline(**store) as pipeline:
        (hit,) = pipeline.search(photos[3], 1)
        assert (hit.path, round(hit.score, 3)) == (str(photos[3]), 1.0)
        assert pipeline.insert_images_streaming(photos[9:12])
        assert pipeline.count() == 12
    with ImageEmbeddingPipeline(**store, image_size=128) as other, pytest.raises(CollectionMismatchError, match="size"):
        other.insert_images(photos[:1])
