"""The pictures of a storm, what must become of them, and what did."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from penstock.engine.journal import JobFolder, Outcome, read_status
from penstock.sinks import MilvusSink, row_key
from penstock.sinks.arrow import arrow
from penstock.sinks.dead_letters import read_dead_letters

GOOD = 160
"""Pictures that nobody touches."""
SHY = 12
"""Pictures that may vanish or be replaced while a job runs."""
OTHERS = 2
"""Files that are no pictures and are not meant to be."""


def draw_pictures(folder: Path) -> None:
    """Small pictures of noise, those that the storm may change, hostile ones, and files that are none."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    whole = b""
    for number in range(GOOD + SHY):
        name = f"{number:03}.png" if number < GOOD else f"shy-{number - GOOD:02}.png"
        pixels = noise.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        whole = (folder / name).read_bytes()
    (folder / "050-empty.jpg").write_bytes(b"")
    (folder / "060-page.jpg").write_text("<!doctype html><title>404</title>")
    (folder / "070-cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "080-bomb.png").write_bytes(whole[:16] + (60_000).to_bytes(4, "big") * 2 + whole[24:])
    (folder / "090-gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "100-fifo.png")
    for number in range(OTHERS):
        (folder / f"notes-{number}.txt").write_text("no picture")


def replaced(path: Path) -> None:
    """Put other pixels in the place of a picture, the same ones each time."""
    pixels = np.full((40, 40, 3), 17 + int(path.stem[-2:]), np.uint8)
    temporary = path.parent.parent / f"{path.name}.new"
    Image.fromarray(pixels).save(temporary, format="png")
    temporary.replace(path)


@dataclass(frozen=True)
class Leavings:
    """What a finished job has left, by the names of the pictures.

    Attributes:
        rows: digest of each vector in the store.
        count: rows in the store, counted by itself.
        letters: error of the latest dead letter.
        outcomes: what the journal says.
    """

    rows: dict[str, str]
    count: int
    letters: dict[str, str]
    outcomes: dict[str, Outcome]


def leavings(pictures: Path, store: str, job: Path) -> Leavings:
    """Read all of it."""
    names = {row_key(str(path)): path.name for path in _all(pictures)}
    rows, count = _parquet(Path(store[5:])) if store.startswith("bulk:") else _milvus(store, list(names))
    letters = {Path(letter.key).name: letter.error for letter in read_dead_letters(job / "dead-letters.jsonl")}
    with JobFolder.create_or_open(job) as books:
        outcomes = {Path(entry.name).name: books.states[at] for at, entry in enumerate(books.snapshot)}
        assert books.counts == read_status(job).counts
    return Leavings({names.get(key, key): digest for key, digest in rows.items()}, count, letters, outcomes)


def _all(pictures: Path) -> list[Path]:
    """Every name that was ever there, also of what the storm has removed."""
    shy = [pictures / f"shy-{number:02}.png" for number in range(SHY)]
    return sorted({*pictures.iterdir(), *shy})


def _milvus(store: str, keys: list[str]) -> tuple[dict[str, str], int]:
    with MilvusSink(store, "images") as sink:
        rows = sink.get(keys, vectors=True)
        return {key: _digest(row["vector"]) for key, row in rows.items()}, sink.count()


def _parquet(folder: Path) -> tuple[dict[str, str], int]:
    _, parquet = arrow()
    found: list[tuple[str, str]] = []
    for part in sorted(folder.glob("*.parquet")):
        table = parquet.read_table(part, columns=["key", "vector"]).to_pydict()
        found += [(key, _digest(vector)) for key, vector in zip(table["key"], table["vector"], strict=True)]
    return dict(found), len(found)


def _digest(vector: object) -> str:
    return hashlib.sha256(np.asarray(vector, np.float32).tobytes()).hexdigest()[:16]


def check_leavings(found: Leavings, undisturbed: Leavings) -> list[str]:
    """What is wrong about them; nothing, as it should be."""
    wrong: list[str] = []
    if found.count != len(found.rows):
        wrong.append(f"{found.count} rows in the store for {len(found.rows)} pictures: some twice, or of none")
    differs = found.outcomes.keys() ^ undisturbed.outcomes.keys()
    if any(not name.startswith("shy-") for name in differs):  # those may be gone before they are listed
        wrong.append(f"the listing differs: {sorted(differs)}")
    for name, outcome in found.outcomes.items():
        wrong += _check_shy(found, name) if name.startswith("shy-") else _check_calm(found, undisturbed, name)
        if outcome is Outcome.WRITTEN and name not in found.rows:
            wrong.append(f"{name}: written, says the journal, and it is not in the store")
        if outcome is Outcome.DEAD and name not in found.letters:
            wrong.append(f"{name}: dead, says the journal, and there is no letter")
        if outcome is Outcome.UNDONE:
            wrong.append(f"{name}: nothing has become of it")
    return wrong


def _check_calm(found: Leavings, undisturbed: Leavings, name: str) -> list[str]:
    """Nobody touched it: all must be as in a job that nobody disturbed."""
    pairs = {
        "row": (found.rows.get(name), undisturbed.rows.get(name)),
        "letter": (found.letters.get(name), undisturbed.letters.get(name)),
        "outcome": (found.outcomes.get(name), undisturbed.outcomes.get(name)),
    }
    return [f"{name}: {what} {is_!r}, undisturbed {was!r}" for what, (is_, was) in pairs.items() if is_ != was]


def _check_shy(found: Leavings, name: str) -> list[str]:
    """It may have vanished or changed at any moment: a row or a dead letter, as the journal says."""
    if found.outcomes[name] in (Outcome.WRITTEN, Outcome.DEAD):
        return []
    return [f"{name}: came to {found.outcomes[name].name}"]
