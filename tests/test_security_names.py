"""Hostile names and metadata through the whole job (S3, S9, S13): as files on disk, as ids, as what a picture carries.

What single parts promise about names is tested with them (``test_sink_dead_letters``, ``test_render``,
``test_cli_commands``, ``test_decode_hostile``); here they pass through all of them, as a user runs them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from penstock import ImageEmbeddingPipeline, embed_images
from penstock.engine.sources import key_of
from penstock.errors import SinkError
from penstock.formatting import printable
from penstock.sinks import MilvusSink, is_fit_key, row_key
from penstock.sinks.milvus.whole import key_range
from penstock.tests.waiting import DEADLINE

pytestmark = pytest.mark.slow

ON_DISK = [
    *(b"-rf.jpg", b"--help.jpg", b"-.jpg", b"...jpg", b"~.jpg", b" .jpg", b"a .jpg ", b"*.jpg", b"?[x].jpg"),
    *(b"$(touch pwned).jpg", b"`touch pwned`.jpg", b"; touch pwned;.jpg", b"| touch pwned.jpg", b"&& touch pwned.jpg"),
    *(b"a\nwritten 1000000.jpg", b"a\rb.jpg", b"a\tb.jpg", b"\x1b[31mred\x1b[0m.jpg", b"\x1b]0;title\x07.jpg"),
    *(b"\x7f.jpg", b"\xff\xfe.jpg", b"\xed\xa0\x80.jpg", "\u202egpj.exe.jpg".encode(), "\u2028.jpg".encode()),
    *(b"<script>alert(1)<!script>.jpg", b'" onerror="alert(1).jpg', b"%s%n{path}{0}.jpg", b"'; drop table;--.jpg"),
    *(b'" or key != ".jpg', b"\\..\\..\\x.jpg", b"a" * 251 + b".jpg", b"@list.jpg", "\u200f\u0627.jpg".encode()),
]
"""Names a file can have. Those at odd places are no pictures, so that names meet dead letters too."""

IDS = [
    *(".", "", "..", "/", "//", "../../etc/passwd", "/etc/passwd", "a/../../b", "a\0b", "a\nb", "-rf", "x" * 4096),
    *("\x1b[31m", "\ud800", "\udcff", "\u202e", "C:\\x", "s3://bucket/../x", "file:///etc/passwd", "$(id)", "; rm"),
    *('" or 1==1 or "', "' or '' == '", 'key != ""', "{keys}", "%s", "<b>", "null", "0", "*", "\\", "ключ"),
]
"""Ids a caller can give."""

MARK = "MARK-9f1c-<script>alert(1)</script>"


def tree(folder: Path) -> set[str]:
    """Everything below a folder, but inside the store."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.startswith("p.db/")}


def rows_of(store: Path, *columns: str) -> list[dict[str, Any]]:
    """What the store holds, read with a plain client."""
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(str(store))
    try:
        client.load_collection("images")
        return [dict(row) for row in client.query("images", filter="", output_fields=list(columns), limit=1000)]
    finally:
        client.close()
        server_manager_instance.release_all()


def penstock(folder: Path, *arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """The command line, with nothing but pipes around it."""
    command = [sys.executable, "-c", "import sys; from penstock.engine.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=DEADLINE, check=False)


def is_harmless(text: bytes) -> bool:
    """Whether a terminal can only print it: lines of printable characters."""
    return all(line.isprintable() for line in text.decode().replace("\t", " ").split("\n"))


@pytest.fixture
def pictures(tmp_path: Path, photos: list[Path]) -> Path:
    """A folder of the hostile names: two in three are pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(ON_DISK):
        data = photos[number % len(photos)].read_bytes()
        (folder / os.fsdecode(name)).write_bytes(data[:100] if number % 3 == 1 else data)
    return folder


def test_hostile_file_names_go_through_the_whole_job(pictures: Path, tmp_path: Path) -> None:
    """Each file is a row or a dead letter under its own key; nothing is executed, nothing written elsewhere, and what
    is printed, reported and shown is escaped."""
    before = tree(tmp_path)
    job: list[str | bytes] = [
        "embed",
        os.fsencode(pictures),
        "--to",
        "p.db",
        "--job",
        "job",
        "--report",
        "r.html",
        "--workers",
        "1",
    ]
    done = penstock(tmp_path, *job, "--progress", "plain")
    assert done.returncode == 0, done.stderr
    assert is_harmless(done.stdout + done.stderr)
    made = {"p.db", "p.db.lock", "job", "job/report.json", "job/dead-letters.jsonl", "r.html"}
    made |= {"job/job.json", "job/lock", "job/journal-1", "job/journal-2", "job/snapshot-1"}
    assert tree(tmp_path) - before <= made
    paths = [os.fsdecode(os.fsencode(pictures) + b"/" + name) for name in ON_DISK]
    good = {path for number, path in enumerate(paths) if number % 3 != 1}
    letters = [json.loads(line) for line in (tmp_path / "job" / "dead-letters.jsonl").read_text().splitlines()]
    assert {letter["key"] for letter in letters} == {key_of(path) for path in paths if path not in good}
    rows = rows_of(tmp_path / "p.db", "key", "path")
    assert {row["key"] for row in rows} == {row_key(path) for path in good}
    assert {row["path"] for row in rows} == {key_of(path) for path in good}
    assert_shown_harmlessly(tmp_path, os.fsencode(pictures) + b"/" + ON_DISK[0])


def assert_shown_harmlessly(folder: Path, query: bytes) -> None:
    """The reports, the search's lines and its contact sheet hold no markup and no control character of a name."""
    found = penstock(folder, "search", "p.db", query, "-k", "100", "--html", "sheet.html")
    assert found.returncode == 0, found.stderr
    assert is_harmless(found.stdout + found.stderr)
    assert printable("\x1b[31mred").encode() in found.stdout
    for page in ("r.html", "sheet.html", "job/report.json"):
        text = (folder / page).read_bytes()
        assert is_harmless(text)
        assert b"<script>alert" not in text
        assert b'" onerror="' not in text


def test_hostile_ids_make_keys_that_carry_nothing(photos: list[Path], tmp_path: Path) -> None:
    """An id that cannot stand in a filter expression becomes a digest; others stay; the caller gets its own back."""
    data = photos[0].read_bytes()
    inputs = [data if number % 4 else b"no picture" for number in range(len(IDS))]
    with ImageEmbeddingPipeline(to=str(tmp_path / "p.db"), workers=1) as pipeline:
        before = tree(tmp_path)
        done = pipeline.insert_images_streaming(inputs, ids=IDS)
        letters = [json.loads(line) for line in Path(pipeline.dead_letters).read_text().splitlines()]
        assert pipeline.report is not None
        assert pipeline.report.accounting.read == len(IDS)
    good = [given for number, given in enumerate(IDS) if number % 4]
    assert done == [given if number % 4 else None for number, given in enumerate(IDS)]
    assert [letter["key"] for letter in letters] == [given for number, given in enumerate(IDS) if not number % 4]
    keys = {row["key"] for row in rows_of(tmp_path / "p.db", "key")}
    # An empty id is none: that picture has the key of its content.
    assert keys - {given if is_fit_key(given) else row_key(given) for given in good if given} == {
        row_key(f"content:{row_key(data)}")
    }
    assert tree(tmp_path) - before <= {"p.db", "p.dead-letters.jsonl", "p.db.lock"}


def test_a_key_asked_for_is_never_an_expression(photos: list[Path], tmp_path: Path) -> None:
    """Asking for a key that is an attack finds nothing; the row that is asked for comes, and only it."""
    attacks = [
        '" or key != ""',
        "' or '' == '",
        'x" or true or "',
        "\\",
        "a\nb",
        "{key}",
        '"]) or key in (["b',
        "no row",
    ]
    with ImageEmbeddingPipeline(to=str(tmp_path / "p.db"), workers=1) as pipeline:
        pipeline.insert_images([str(photo) for photo in photos[:4]], ids=list("abcd"))
    with MilvusSink(str(tmp_path / "p.db"), "images") as sink:
        assert [list(sink.get([attack])) for attack in attacks] == [[]] * len(attacks)
        assert list(sink.get([*attacks, "b"])) == ["b"]
        assert sink.count() == 4


def test_metadata_inside_a_picture_goes_nowhere(tmp_path: Path) -> None:
    """EXIF, comments, text chunks and profiles are neither in rows nor in reports nor in dead letters."""
    folder = tmp_path / "in"
    folder.mkdir()
    picture = Image.linear_gradient("L").convert("RGB")
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x9C9B):
        exif[tag] = MARK.encode("utf-16-le") if tag == 0x9C9B else MARK
    text = PngInfo()
    text.add_text("Comment", MARK)
    text.add_itxt("XML:com.adobe.xmp", f"<x>{MARK}</x>")
    profile = b"\0" * 128 + MARK.encode()
    picture.save(folder / "a.jpg", exif=exif, comment=MARK.encode(), icc_profile=profile)
    picture.save(folder / "b.png", pnginfo=text, exif=exif)
    picture.save(folder / "c.webp", exif=exif, xmp=MARK.encode())
    picture.save(folder / "d.tiff", description=MARK, artist=MARK)
    for name in ("a.jpg", "b.png", "c.webp", "d.tiff"):
        data = (folder / name).read_bytes()
        assert MARK.encode() in data
        (folder / f"cut-{name}").write_bytes(data[: len(data) - 40])
    report = embed_images(
        folder, to=str(tmp_path / "p.db"), job=tmp_path / "job", report=tmp_path / "r.html", workers=1
    )
    assert report.accounting.written >= 4
    rows = rows_of(tmp_path / "p.db", "*")
    assert all(set(row) <= {"key", "vector", "path", "width", "height"} for row in rows)
    assert MARK not in repr(rows)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents]
    assert {path.name for path in written} >= {"report.json", "r.html", "dead-letters.jsonl"}
    assert not [path for path in written if b"MARK-9f1c" in path.read_bytes()]


@pytest.mark.parametrize("key", ['x" or key > "', "x' or 1 == 1", "back\\slash", "line\nbreak"])
@pytest.mark.parametrize("is_low", [True, False])
def test_a_key_that_could_carry_an_expression_bounds_no_range(key: str, is_low: bool) -> None:
    """In a collection of somebody else's there may be such keys: an error that names one, and no request with it."""
    with pytest.raises(SinkError, match="cannot be asked for"):
        key_range(*((key, "z") if is_low else ("a", key)))
    assert key_range("a", "z") == 'key > "a" and key <= "z"'
