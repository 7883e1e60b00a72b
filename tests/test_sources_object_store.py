"""Pictures in object stores: what a URL stands for, in which order, and whole jobs with their books."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import penstock
from penstock import ConfigError, Report
from penstock.engine.cli import main
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.journal import JobFolder, read_status
from penstock.engine.sources import (
    Entry,
    Filtered,
    Item,
    Selection,
    Source,
    SourceOptions,
    UrlOptions,
    Version,
    open_source,
)
from penstock.errors import SourceError
from penstock.object_stores import StoreOptions
from penstock.preprocess.sandbox import sandbox
from penstock.sinks import row_key
from penstock.testing.sources import SourceContract
from penstock.tests.drawn import encoded
from penstock.tests.small_s3 import Request, SmallS3, busy, drip, refused
from penstock.tests.whole_jobs import digest_of, started, stored, wait_for, written
from penstock.tests.whole_jobs import penstock as command

pytest.importorskip("obstore")

NOISE = np.random.default_rng(0)
SMALL: dict[str, Any] = {"batch_size": 8, "insert_batch_size": 16, "workers": 2, "progress": "none"}
FLAGS = ["--batch-size", "8", "--insert-batch-size", "16", "--workers", "2", "--progress", "none"]
BRISK = UrlOptions(StoreOptions(retries=0))


def picture() -> bytes:
    """The file of a small picture of noise."""
    return encoded(Image.fromarray(NOISE.integers(0, 256, (32, 32, 3), np.uint8)), "PNG")


def by_folder(key: str) -> bytes:
    """The order of a store that lists folder by folder."""
    return key.encode().replace(b"/", b"\0")


def opened(*specs: str, **selection: Any) -> Source:
    return open_source(specs, SourceOptions(Selection(**selection), urls=BRISK))


def keys(entries: Iterable[Entry], kind: type[Entry] = Item) -> list[str]:
    return [entry.key.removeprefix("s3://bucket/") for entry in entries if isinstance(entry, kind)]


class TestObjects(SourceContract):
    """The contract, for a bucket in the order of S3."""

    kinds = frozenset({Item, Filtered})

    @pytest.fixture
    def source(self, small_s3: SmallS3) -> Source:
        names = [
            "a.jpg",
            "a/b.jpg",
            "a-b.jpg",
            "a b.jpg",
            "Z.png",
            "é.jpg",
            "\U0001f600.jpg",
            "a?b=c&d#e.jpg",
            "a%25.jpg",
        ]
        for name in (*names, "notes.txt"):
            small_s3.put(name, name.encode())
        return open_source(["s3://bucket"])


class TestFolders(TestObjects):
    """The contract, for several URLs of a store that lists by folder."""

    @pytest.fixture
    def source(self, small_s3: SmallS3) -> Source:
        small_s3.order = by_folder
        for name in ("y/a/1.jpg", "y/a-1.jpg", "y/a/notes.txt", "x/b/1.jpg", "x/b.jpg", "x/b-1.jpg"):
            small_s3.put(name, name.encode())
        source = open_source(["s3://bucket/y", "s3://bucket/x/"])
        list(source)
        assert source.order == "path"
        return source

    def test_it_is_made_again_in_another_folder(self, source: Source) -> None:  # type: ignore[override]
        """The order is found when it is listed, and kept in the books: see below."""
        assert open_source([*source.portable_specs()]).fingerprint() == source.fingerprint()


class TestWhatAUrlStandsFor:
    """A folder, a glob, an object."""

    @pytest.fixture(autouse=True)
    def _objects(self, small_s3: SmallS3) -> None:
        for name in (
            "vol_01/p.jpg",
            "vol_01/deep/q.png",
            "vol_02/p.jpg",
            "vol_2.jpg",
            "vol_x/cover",
            "vol_x/notes.txt",
        ):
            small_s3.put(name, b"x")
        small_s3.put("vol_x/", b"")

    @pytest.mark.parametrize(
        ("specs", "found"),
        [
            (["s3://bucket/vol_01"], ["vol_01/deep/q.png", "vol_01/p.jpg"]),
            (["s3://bucket/vol_01/"], ["vol_01/deep/q.png", "vol_01/p.jpg"]),
            (["s3://bucket/vol_0*/"], ["vol_01/deep/q.png", "vol_01/p.jpg", "vol_02/p.jpg"]),
            (["s3://bucket/vol_0*/*.jpg"], ["vol_01/p.jpg", "vol_02/p.jpg"]),
            (["s3://bucket/**/q.png"], ["vol_01/deep/q.png"]),
            (["s3://bucket/vol_2.jpg"], ["vol_2.jpg"]),
            (["s3://bucket/vol_x"], ["vol_x/cover"]),
            (["s3://bucket/vol_02", "s3://bucket/vol_0*/*.jpg"], ["vol_02/p.jpg", "vol_01/p.jpg"]),
            (["s3://bucket/vol_2.jpg", "s3://bucket/vol_2.*"], ["vol_2.jpg"]),
        ],
    )
    def test_by_its_form(self, specs: list[str], found: list[str]) -> None:
        """What two of them stand for is taken once."""
        assert keys(opened(*specs)) == found

    def test_what_is_no_picture_is_left_out(self) -> None:
        """By its name, as far as that says; a selection is about what lies below the URL."""
        assert keys(opened("s3://bucket/vol_x"), Filtered) == ["vol_x", "vol_x/notes.txt"]
        assert keys(opened("s3://bucket/vol_x", include=["*.txt"])) == ["vol_x/notes.txt"]
        assert keys(opened("s3://bucket", exclude=["vol_0*/", "*.txt"])) == ["vol_2.jpg", "vol_x/cover"]

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("s3://bucket/nothing", "'s3://bucket/nothing': there are no objects"),
            ("s3://bucket/no*.jpg", r"'s3://bucket/no\*.jpg': there are no objects that match"),
            ("s3://other/x", "'s3://other/x' is not there: .*NoSuchBucket"),
        ],
    )
    def test_nothing_is_an_error_before_the_job(self, spec: str, said: str) -> None:
        """In one line, that says what."""
        with pytest.raises(SourceError, match=said) as raised:
            opened(spec)
        assert len(str(raised.value).splitlines()) == 1

    def test_a_refusal_is_an_error_before_the_job(self, small_s3: SmallS3) -> None:
        """With the way out of it; likewise wrong options."""
        small_s3.faults["*"] = refused(403, "AccessDenied")
        with pytest.raises(SourceError, match=r"access denied: .*AccessDenied.*--anonymous"):
            opened("s3://bucket/x/")
        with pytest.raises(ConfigError, match="follow_links"):
            opened("s3://bucket", follow_links=True)
        with pytest.raises(SourceError, match="sources of different kinds"):
            opened("s3://bucket", "gs://bucket")
        with pytest.raises(ConfigError, match="credentials in a URL") as raised:
            opened("s3://key:MARKER@bucket/x")
        assert "MARKER" not in str(raised.value)


def test_keys_that_obstore_cannot_name_are_listed_and_read(small_s3: SmallS3) -> None:
    """Among the others, each once."""
    pytest.importorskip("boto3")
    names = ["f/a.jpg", "f//b.jpg", "f/../c.jpg", "f/line\nend.jpg", *(f"f/{number:04}.jpg" for number in range(1200))]
    for name in (*names, "f/"):
        small_s3.put(name, name.encode())
    source = opened("s3://bucket/f")
    found = [entry for entry in source if isinstance(entry, Item)]
    assert keys(found) == sorted(names, key=str.encode)
    assert source.order == "bytes"
    fetcher = BRISK.locator.open()
    for item in found[:5]:
        assert item.reference is not None
        assert fetcher.read(item.reference.ref, item.reference.version, 99).decode() == item.key[len("s3://bucket/") :]


def test_a_job_that_goes_on_without_credentials_is_told_so(small_s3: SmallS3, aws: pytest.MonkeyPatch) -> None:
    """Once, and not by a dead letter for each picture; who only asks for what was done needs none."""
    small_s3.put("a.jpg", b"x")
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    source = open_source(["s3://bucket"], SourceOptions(later=True))
    with pytest.raises(ConfigError, match="'s3://bucket': there are no credentials: set AWS_ACCESS_KEY_ID"):
        source.item(0, "s3://bucket/a.jpg", Version(1))


def test_an_order_is_found_not_believed(small_s3: SmallS3) -> None:
    """A store that lists as it likes is in no order."""
    small_s3.order = lambda key: key[::-1]
    for name in ("a1.jpg", "b0.jpg", "c2.jpg"):
        small_s3.put(name, b"x")
    source = opened("s3://bucket")
    list(source)
    assert source.order == "given"


# -- whole jobs --


def fill(store: SmallS3, count: int = 120) -> None:
    """Pictures whose keys a walk would have in another order: ``001-x`` before ``001/x``."""
    for number in range(count // 2):
        for sign in "/-":
            store.put(f"{number:03}{sign}x.png", picture())


def run(folder: Path, source: Any = "s3://bucket", **settings: Any) -> Report:
    """The job in ``folder``, in this process."""
    own = {"to": str(folder / "rows.db"), "job": folder / "job"}
    folder.mkdir(exist_ok=True)
    return penstock.embed_images(source, **own, **SMALL | settings)  # type: ignore[arg-type]


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Of the vectors in the store, by the keys of the pictures."""
    of = [f"s3://bucket/{name}" for name in names]
    found = digest_of(folder, [row_key(key) for key in of])
    return {key.removeprefix("s3://bucket/"): found[row_key(key)] for key in of if row_key(key) in found}


def letters_of(folder: Path) -> dict[str, dict[str, str]]:
    lines = (folder / "job" / "dead-letters.jsonl").read_text().splitlines()
    return {letter["key"].removeprefix("s3://bucket/"): letter for letter in map(json.loads, lines)}


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done between the listing and the first read, of one job."""
    begun = JobCheckpoint.starts

    def give(call: Callable[[], object]) -> None:
        def starts(self: JobCheckpoint) -> None:
            monkeypatch.setattr(JobCheckpoint, "starts", begun)
            call()
            begun(self)

        monkeypatch.setattr(JobCheckpoint, "starts", starts)

    return give


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.usefixtures("own_fork_server")
def test_a_job_that_is_killed_goes_on_and_ends_as_an_undisturbed_one(
    small_s3: SmallS3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, which makes the source again from what the job keeps, and lists nothing again."""
    fill(small_s3)
    killed, job = tmp_path / "killed", tmp_path / "killed" / "job"
    killed.mkdir()
    arguments = ["s3://bucket", "--to", str(killed / "rows.db"), "--job", str(job), *FLAGS]
    with started(command("embed", *arguments)) as process:
        wait_for(process, lambda: written(killed) >= 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 20 <= written(killed) < 120
    listed = small_s3.count("")
    assert main(["resume", str(job), "--progress", "none"]) == 0
    assert main(["resume", str(job)]) == 0
    assert small_s3.count("") == listed
    assert "finished already: 120 entries: 120 written" in capsys.readouterr().out
    run(tmp_path / "undisturbed")
    assert stored(killed) == 120
    assert digests(killed, small_s3.objects) == digests(tmp_path / "undisturbed", small_s3.objects)


def by_whim(key: str) -> object:
    """The order of a store that lists as it likes."""
    return key[::-1]


@pytest.mark.slow
@pytest.mark.usefixtures("own_fork_server")
@pytest.mark.parametrize("order", [str.encode, by_folder, by_whim])
def test_an_update_does_new_and_changed_objects(
    order: Callable[[str], object], small_s3: SmallS3, tmp_path: Path
) -> None:
    """Anywhere among others, which are left alone; in whichever order the store lists. What is gone is forgotten."""
    small_s3.order = order
    fill(small_s3)
    run(tmp_path / "a")
    with JobFolder.create_or_open(tmp_path / "a" / "job") as folder:
        found: dict[Callable[[str], object], str] = {str.encode: "bytes", by_folder: "path", by_whim: "sorted"}
        assert folder.order == found[order]
    before = digests(tmp_path / "a", small_s3.objects)
    for name in ("030/x.png", "030-a.png", "030.new.png"):
        small_s3.put(name, picture())
    del small_s3.objects["031-x.png"]
    report = run(tmp_path / "a", update=True)
    assert (report.accounting.written, report.extra["job"]["entries"]) == (3, 121)
    after = digests(tmp_path / "a", small_s3.objects)
    assert {key for key in after if after[key] != before.get(key)} == {"030/x.png", "030-a.png", "030.new.png"}


@pytest.mark.slow
@pytest.mark.usefixtures("own_fork_server")
def test_what_cannot_be_had_is_a_dead_letter_and_can_be_tried_again(
    small_s3: SmallS3, tmp_path: Path, between: Callable[[Callable[[], object]], None]
) -> None:
    """Gone, denied, replaced since it was listed, too large, no picture; all others are done."""
    fill(small_s3, 40)
    away = picture()
    for name, data in {
        "away.png": away,
        "bad.png": b"no picture",
        "changed.png": picture(),
        "denied.png": picture(),
    }.items():
        small_s3.put(name, data)
    small_s3.put("large.png", bytes(100_000))
    small_s3.faults["denied.png"] = refused(403, "AccessDenied")

    def change() -> None:
        small_s3.put("changed.png", picture())
        del small_s3.objects["away.png"]

    between(change)
    run(tmp_path / "a", max_file_bytes=50_000)
    letters = letters_of(tmp_path / "a")
    assert {key: letter["error"] for key, letter in letters.items()} == {
        "away.png": "ReadError",
        "bad.png": "UnreadableError",
        "changed.png": "ReadError",
        "denied.png": "ReadError",
        "large.png": "TooLargeError",
    }
    assert "is not there" in letters["away.png"]["message"]
    assert "has changed since it was listed: --update takes it as it is now" in letters["changed.png"]["message"]
    assert "access denied" in letters["denied.png"]["message"]
    assert small_s3.count("large.png", "GET") == 0
    small_s3.put("away.png", away)
    del small_s3.faults["denied.png"]
    assert main(["retry", str(tmp_path / "a" / "job"), "--error", "ReadError", "--progress", "none"]) == 0
    counts = read_status(tmp_path / "a" / "job").counts
    assert (counts.written, counts.dead, counts.remaining) == (42, 3, 0)
    assert main(["resume", str(tmp_path / "a" / "job"), "--update", "--progress", "none"]) == 0
    assert read_status(tmp_path / "a" / "job").counts.written == 43


@pytest.mark.slow
@pytest.mark.usefixtures("own_fork_server")
def test_a_store_that_is_busy_for_a_while_costs_nothing_but_time(small_s3: SmallS3, tmp_path: Path) -> None:
    """503 for more attempts than the client makes: the policy of the job tries on."""
    fill(small_s3, 20)
    for name in small_s3.objects:
        small_s3.faults[name] = busy(5)
    report = run(tmp_path / "a")
    assert (report.accounting.written, report.accounting.dead) == (20, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("own_fork_server")
def test_an_object_that_comes_byte_by_byte_costs_itself_only(small_s3: SmallS3, tmp_path: Path) -> None:
    """All attempts end within the time of one picture, so no worker is replaced for it."""
    fill(small_s3, 20)
    small_s3.put("slow.png", bytes(100_000))
    small_s3.faults["slow.png"] = drip(0.02)
    report = run(tmp_path / "a", item_timeout=6.0, on_failure={"preprocess": "skip"})
    assert (report.accounting.written, report.accounting.dead) == (20, 1)
    (letter,) = letters_of(tmp_path / "a").values()
    assert (letter["key"], letter["error"]) == ("s3://bucket/slow.png", "ReadError")
    assert "no answer that is of use" in letter["message"]


@pytest.mark.slow
@pytest.mark.usefixtures("own_fork_server")
def test_a_store_without_etags_is_read_by_size_and_time(
    small_s3: SmallS3, tmp_path: Path, between: Callable[[Callable[[], object]], None]
) -> None:
    """What has another size, or was changed at another time, is not what was listed."""
    small_s3.etags = False
    fill(small_s3, 20)
    data = picture()
    small_s3.put("same-size.png", data)
    small_s3.put("grown.png", data)

    def change() -> None:
        small_s3.put("same-size.png", data[::-1])
        small_s3.objects["same-size.png"].modified += 10
        small_s3.put("grown.png", data + b"x")

    between(change)
    assert run(tmp_path / "a").accounting.written == 20
    letters = letters_of(tmp_path / "a")
    assert letters.keys() == {"same-size.png", "grown.png"}
    assert all("has changed since it was listed" in letter["message"] for letter in letters.values())


@pytest.mark.slow
@pytest.mark.skipif(not sandbox.means(), reason="this kernel has no means of a sandbox")
@pytest.mark.usefixtures("own_fork_server")
def test_confined_workers_have_their_objects_read_for_them(small_s3: SmallS3, tmp_path: Path) -> None:
    """The same vectors; what cannot be read is a dead letter as ever."""
    fill(small_s3, 40)
    run(tmp_path / "a")
    seen: list[str] = []

    def gone(request: Request) -> bool:
        seen.append(request.method)
        request.refuse(404, "NoSuchKey")
        return True

    small_s3.put("gone.png", picture())
    small_s3.faults["gone.png"] = gone
    report = run(tmp_path / "b", sandbox=True)
    assert (report.accounting.written, report.accounting.dead) == (40, 1)
    assert seen
    assert digests(tmp_path / "a", small_s3.objects) == digests(tmp_path / "b", small_s3.objects)
