"""From what the user names to a source: files where there is no scheme, plugins by theirs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engine.cli import main
from penstock.engine.config.model import ServiceConfig
from penstock.engine.doctor.examine import registries
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.fingerprints import begun_with
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.common.source_factory import make_source
from penstock.engine.journal import read_status
from penstock.engine.sources import Broken, FileSource, Item, Selection, SourceOptions, open_source
from penstock.errors import ConfigError, SourceError

SHELF = """
from penstock.engine.sources import Item, Source

class Shelf(Source):
    def __init__(self, specs): self.specs = tuple(specs)
    def __iter__(self): return (self.item(-1, f"{spec}/{name}", None) for spec in self.specs for name in ("a-b", "a/b"))
    def item(self, ordinal, name, version): return Item(name, data=b"no picture", ordinal=ordinal, version=version)

def make(specs, options): return Shelf(specs)
"""


@pytest.fixture
def shelf(install: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin for ``shelf:``, and a folder to be in with one file of nearly that name."""
    install("acme_shelf", {"shelf": "acme_shelf:make", "file": "acme_shelf:make"}, SHELF, "penstock.sources")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("a.jpg").write_bytes(b"\xff\xd8\xff")
    Path("shelf:is a file.jpg").write_bytes(b"\xff\xd8\xff")


def keys(*specs: str) -> list[str]:
    return [entry.key for entry in open_source(specs)]


@pytest.mark.usefixtures("shelf")
def test_a_scheme_reaches_its_plugin() -> None:
    """One spec or several; files stay what is built in, also by a name that looks like the scheme."""
    assert keys("shelf:1") == ["shelf:1/a-b", "shelf:1/a/b"]
    assert keys("SHELF:1", "shelf:2")[::2] == ["SHELF:1/a-b", "shelf:2/a-b"]
    assert keys("shelf:is a file.jpg") == [f"{Path.cwd()}/shelf:is a file.jpg"]
    Path("colon:1.jpg").write_bytes(b"\xff\xd8\xff")
    assert keys("colon:*.jpg") == [f"{Path.cwd()}/colon:1.jpg"]
    assert isinstance(open_source(["a.jpg"]), FileSource)
    assert isinstance(open_source(["-"], SourceOptions(stdin=io.BytesIO())), FileSource)
    assert "penstock.sources" in [registry.group for registry in registries()]


@pytest.mark.usefixtures("shelf")
def test_sources_of_different_kinds_are_not_mixed() -> None:
    """A job is about one of them; credentials are not shown."""
    with pytest.raises(SourceError, match=r"'a\.jpg' and 'shelf:1' are sources of different kinds"):
        open_source(["a.jpg", "shelf:1"])
    with pytest.raises(SourceError, match=r"'shelf://\*\*\*@1' and 'a\.jpg' are sources"):
        open_source(["shelf://user:MARKER@1", "a.jpg"])


@pytest.mark.usefixtures("shelf")
def test_options_that_are_about_files_are_refused_where_there_are_none() -> None:
    """Rather than left out in silence."""
    with pytest.raises(ConfigError, match=r"source: 'shelf:1' is no folder, which --include \*.jpg is about"):
        open_source(["shelf:1"], SourceOptions(Selection(include=["*.jpg"])))
    with pytest.raises(ConfigError, match="null: is about lists of paths, and 'shelf:1' has none"):
        open_source(["shelf:1"], SourceOptions(null=True))


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "shelv://x",
            r"'shelv://x': there is no 'shelv', there are .*; did you mean 'shelf'\?; download the",
        ),
        (
            "ftp://user:MARKER@host/x",
            r"'ftp://\*\*\*@host/x': there is no 'ftp', there are .*; download the",
        ),
        (
            "shelves:x",
            "'shelves:x': there is no such file or folder, and of sources there is no 'shelves', there are arrow, az",
        ),
        ("file://pictures", r"a file's URL has three slashes: file:///folder"),
        ("file:///no/such/folder", "'/no/such/folder': there is no such file or folder"),
    ],
)
def test_what_nothing_reads_is_refused_with_what_there_is(spec: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source([spec])


@pytest.mark.usefixtures("shelf")
def test_what_nothing_reads_is_a_dead_letter_among_files() -> None:
    """As a file that is missing is."""
    assert [type(entry) for entry in open_source(["a.jpg", "ftp://host/b.jpg"])] == [Item, Broken]


@pytest.mark.usefixtures("shelf")
def test_an_unknown_scheme_is_wrong_usage_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "shelv://x", "--to", "x.db"]) == 2
    assert "there is no 'shelv'" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["", "localhost"])
def test_a_files_url_is_its_path(tmp_path: Path, host: str) -> None:
    """Of folders, files, globs, and in lists; escapes are taken for what they stand for, bytes that are no text too."""
    folder = tmp_path / "ä #1"
    folder.mkdir()
    name = b"\xff.jpg"
    picture = Path(f"{folder}/".encode().decode() + name.decode("utf-8", "surrogateescape"))
    picture.write_bytes(b"\xff\xd8\xff")
    url = f"file://{host}{tmp_path}/%C3%A4%20%231"
    (tmp_path / "list").write_text(f"{url}/%FF.jpg\n")
    for spec in (url, f"{url}/%FF.jpg", f"{url}/*.jpg", f"@{tmp_path}/list"):
        (entry,) = open_source([spec])
        assert isinstance(entry, Item)
        assert entry.path == str(picture)
    assert open_source([url]).fingerprint() == str(folder)


@pytest.mark.usefixtures("shelf")
def test_a_job_of_a_plugin_is_listed_compared_and_begun_again(tmp_path: Path) -> None:
    """Keys come in the order of their bytes, in which a walk would be wrong; a later run makes the same source."""
    config = ServiceConfig(to="rows.db", job=tmp_path / "job")
    with JobCheckpoint(config, make_plan(config), make_source(config, ["shelf:1", "shelf:2"])) as books:
        assert [(entry.ordinal, entry.key) for entry in books.entries()][::3] == [
            (0, "shelf:1/a-b"),
            (3, "shelf:2/a/b"),
        ]
    again, source = begun_with(read_status(tmp_path / "job"), update=True)
    assert source.specs == ("shelf:1", "shelf:2")
    with JobCheckpoint(again, make_plan(again), source) as books:
        assert books.counts.total == 4
    listed = [event for event in read_status(tmp_path / "job").events if event["event"] in ("listed", "renewed")]
    assert [event["order"] for event in listed] == ["bytes", "bytes"]
    assert listed[1]["same"] == 4


@pytest.mark.usefixtures("shelf")
def test_a_job_whose_plugin_is_gone_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its keys are no paths: nothing of it is taken for a file that is missing."""
    config = ServiceConfig(to="rows.db", job=tmp_path / "job")
    with JobCheckpoint(config, make_plan(config), make_source(config, ["shelf:1?x=y"])):
        pass
    (tmp_path / "acme_shelf-1.2.dist-info" / "entry_points.txt").unlink()
    assert main(["resume", str(tmp_path / "job")]) == 2
    assert "of sources there is no 'shelf', there are arrow, az, file" in capsys.readouterr().err
    assert read_status(tmp_path / "job").counts.remaining == 2
