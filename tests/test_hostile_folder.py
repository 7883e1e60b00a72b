"""A folder of everything that can be wrong with a picture, through the whole job: each file ends as it should."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from penstock import embed_images, errors
from penstock.bench.hostile import Expected, make_hostile

pytestmark = pytest.mark.slow


def outcomes(store: Path, letters: Path) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Sizes by path of the rows, and error classes by key of the dead letters."""
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(str(store))
    try:
        client.load_collection("images")
        rows = client.query("images", filter="", output_fields=["path", "width", "height"], limit=1000)
    finally:
        client.close()
        server_manager_instance.release_all()
    dead = [json.loads(line) for line in letters.read_text().splitlines()]
    assert all(letter["stage"] and letter["message"] and letter["time"] for letter in dead)
    assert len({letter["key"] for letter in dead}) == len(dead)
    return {row["path"]: (row["width"], row["height"]) for row in rows}, {d["key"]: d["error"] for d in dead}


def test_every_file_of_a_hostile_folder_is_accounted_for(tmp_path: Path) -> None:
    """Rows have the size a person sees; dead letters the right class; the rest is filtered; nothing is missing."""
    folder = tmp_path / "hostile"
    expected = make_hostile(folder)
    report = embed_images(folder, to=str(tmp_path / "p.db"), workers=2, batch_size=8)
    rows, dead = outcomes(tmp_path / "p.db", tmp_path / "p.dead-letters.jsonl")
    wrong = [name for name, should in expected.items() if not fits(os.path.join(folder, name), should, rows, dead)]
    assert not wrong, {
        name: (expected[name], rows.get(f"{folder}/{name}"), dead.get(f"{folder}/{name}")) for name in wrong
    }
    books = report.accounting
    assert (books.read, books.written, books.dead) == (len(expected), len(rows), len(dead))
    assert books.filtered == sum(should.outcome == "filtered" for should in expected.values())
    assert books.in_flight == 0


def fits(path: str, should: Expected, rows: dict[str, tuple[int, int]], dead: dict[str, str]) -> bool:
    """Whether a file ended as it should, and in no other way."""
    if should.outcome == "row":
        return rows.get(path) == should.size and path not in dead
    if should.outcome == "dead":
        error = getattr(errors, dead.get(path, ""), None)
        return (
            path not in rows and error is not None and issubclass(error, getattr(errors, should.error or "ItemError"))
        )
    return path not in rows and path not in dead
