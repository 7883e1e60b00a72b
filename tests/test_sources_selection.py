"""What is taken of folders: include and exclude globs, and links to folders on request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock import ConfigError, ServiceConfig
from penstock.engine.cli import main
from penstock.engine.jobs.common.checkpoint import JobCheckpoint
from penstock.engine.jobs.common.fingerprints import begun_with
from penstock.engine.jobs.common.plan import make_plan
from penstock.engine.jobs.common.source_factory import make_source
from penstock.engine.journal import read_status
from penstock.engine.sources import FileSource, Filtered, Item, Selection


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures at several depths, one of them hidden."""
    for name in ("a.jpg", "b.png", "raw/c.jpg", "raw/thumbs/d.jpg", "thumbs/e.jpg", ".f.jpg", "raw/deep/raw/g.JPG"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tree"


def taken(source: FileSource, base: Path) -> list[str]:
    """Candidates, relative to a folder."""
    return [os.path.relpath(entry.key, base) for entry in source if isinstance(entry, Item)]


def left_out(source: FileSource, base: Path) -> dict[str, str]:
    """What is filtered, and why."""
    return {os.path.relpath(entry.key, base): entry.why for entry in source if isinstance(entry, Filtered)}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"include": ["*.png"]}, "b.png"),
        ({"include": ["*.jpg"]}, ".f.jpg a.jpg raw/c.jpg raw/thumbs/d.jpg thumbs/e.jpg"),
        ({"include": ["*.[jJ][pP][gG]"], "exclude": [".*", "thumbs"]}, "a.jpg raw/c.jpg raw/deep/raw/g.JPG"),
        ({"include": ["raw"]}, "raw/c.jpg raw/deep/raw/g.JPG raw/thumbs/d.jpg"),
        ({"include": ["raw/*"]}, "raw/c.jpg raw/deep/raw/g.JPG raw/thumbs/d.jpg"),
        ({"include": ["raw/*.jpg"]}, "raw/c.jpg"),
        ({"include": ["/raw/*.jpg", "/*.png"]}, "b.png raw/c.jpg"),
        ({"include": ["**/raw/*.*"]}, "raw/c.jpg raw/deep/raw/g.JPG"),
        ({"include": ["raw/**/?.jpg"]}, "raw/c.jpg raw/thumbs/d.jpg"),
        ({"exclude": ["thumbs/"]}, ".f.jpg a.jpg b.png raw/c.jpg raw/deep/raw/g.JPG"),
        ({"exclude": ["/thumbs"]}, ".f.jpg a.jpg b.png raw/c.jpg raw/deep/raw/g.JPG raw/thumbs/d.jpg"),
        ({"exclude": ["*.jpg/", "raw/**"]}, ".f.jpg a.jpg b.png thumbs/e.jpg"),
        ({"exclude": ["**"]}, ""),
        ({"include": ["[!a].*"], "exclude": ["[c-e].jpg"]}, "b.png raw/deep/raw/g.JPG"),
        ({"include": ["[ab.jpg"]}, ""),
    ],
)
def test_globs_choose_by_name_or_by_the_path_below_the_source(
    tree: Path, how: dict[str, list[str]], expected: str
) -> None:
    """In any folder without a slash, from the source on with one; a folder that matches is meant whole."""
    source = FileSource(str(tree), selection=Selection(how.get("include", ()), how.get("exclude", ())))
    assert taken(source, tree) == expected.split()


def test_what_is_left_out_is_counted_with_its_reason(tree: Path) -> None:
    """A folder once: what is in it is not looked at."""
    source = FileSource(str(tree), selection=Selection(include=["*.jpg", "*.JPG"], exclude=["thumbs"]))
    assert left_out(source, tree) == {
        "b.png": "not included (--include)",
        "raw/thumbs": "excluded (--exclude)",
        "thumbs": "excluded (--exclude)",
    }


def test_what_somebody_named_is_taken_whatever_the_globs_say(tree: Path) -> None:
    """As a file, in a list, as the folder itself; also where a folder around it was named before."""
    (tree / "list").write_text(f"{tree}/b.png\n")
    selection = Selection(include=["*.jpg"], exclude=["raw"])
    for specs in (["tree/b.png"], ["tree", "tree/b.png"], ["@tree/list"]):
        assert "b.png" in taken(FileSource(specs, selection=selection), tree)
    named = FileSource(["tree", "tree/raw"], selection=Selection(exclude=["raw", "e.jpg"]))
    assert taken(named, tree) == [".f.jpg", "a.jpg", "b.png", "raw/c.jpg", "raw/thumbs/d.jpg"]


@example("[?--]")
@example("[--a]")
@given(st.text("ab*?[]!/^-.\\", min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_glob_or_refused_by_name(glob: str) -> None:
    """No expression of ours shows."""
    said = "include: "
    try:
        Selection(include=[glob]).leaves_out("a/b.jpg")
    except ConfigError as error:
        said = str(error)
    assert said.startswith("include: ")


@pytest.mark.parametrize("glob", ["/", "[z-a].jpg", "./"])
def test_what_is_no_glob_is_refused_with_its_option(tree: Path, glob: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, before anything starts."""
    assert main(["embed", str(tree), "--to", "rows.db", "--exclude", glob]) == 2
    assert f"exclude: {glob!r} is no glob" in capsys.readouterr().err


def linked(tree: Path, **links: str) -> FileSource:
    """The tree with links in it, and links followed."""
    for name, target in links.items():
        (tree / name).symlink_to(target)
    return FileSource(str(tree), selection=Selection(follow_links=True))


def outside(tree: Path) -> Path:
    """A folder beside the tree."""
    folder = tree.parent / "outside"
    (folder / "sub").mkdir(parents=True)
    for name in ("x.jpg", "sub/y.jpg"):
        (folder / name).touch()
    return folder


INSIDE = [".f.jpg", "a.jpg", "b.png", "raw/c.jpg", "raw/deep/raw/g.JPG", "raw/thumbs/d.jpg", "thumbs/e.jpg"]


def test_links_to_folders_are_followed_on_request(tree: Path) -> None:
    """Their files are known by the link's name, and stand where it does."""
    outside(tree)
    source = linked(tree, link="../outside")
    assert taken(source, tree) == [*INSIDE[:3], "link/sub/y.jpg", "link/x.jpg", *INSIDE[3:]]
    assert left_out(source, tree) == {}


def test_a_link_that_is_not_followed_says_how(tree: Path) -> None:
    """The usual way to arrange data sets must not look like an empty folder."""
    outside(tree)
    (tree / "link").symlink_to("../outside")
    assert left_out(FileSource(str(tree)), tree) == {"link": "link to a folder: --follow-links follows it"}


def test_loops_of_links_end(tree: Path) -> None:
    """To the folder itself, to what lies above, from outside and back, to one another."""
    folder = outside(tree)
    (folder / "back").symlink_to(tree)
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "twin").symlink_to(folder.parent / "twin")
    (folder.parent / "twin").mkdir()
    (folder.parent / "twin" / "twin").symlink_to(folder)
    source = linked(tree, self=".", above="..", root="/", link="../outside")
    found = taken(source, tree)
    assert sorted(map(os.path.realpath, (tree / name for name in found))) == sorted(
        {os.path.realpath(tree / name) for name in [*INSIDE, "../outside/x.jpg", "../outside/sub/y.jpg"]}
    )
    assert set(left_out(source, tree).values()) == {"link to a folder that is read where it lies"}


@pytest.mark.parametrize("pattern", ["**/*.jpg", "*/*.jpg", "**", "*"])
def test_loops_end_under_a_glob_too(tree: Path, pattern: str) -> None:
    """Whatever part of it the link stands for."""
    outside(tree)
    for name, target in {"self": ".", "above": "..", "link": "../outside", "raw/up": ".."}.items():
        (tree / name).symlink_to(target)
    source = FileSource(f"{tree}/{pattern}", selection=Selection(follow_links=True))
    found = [os.path.realpath(tree / name) for name in taken(source, tree)]
    assert str(tree.parent / "outside" / "x.jpg") in found
    assert len(found) == len(set(found))


def test_what_is_reached_in_two_ways_is_read_once(tree: Path) -> None:
    """By two links, by a link into a link's target, by a link and by name, inside of the source and outside."""
    folder = outside(tree)
    (tree / "1").symlink_to(folder / "sub")
    (tree / "2").symlink_to(folder)
    (tree / "3").symlink_to(folder)
    (tree / "4").symlink_to(tree / "raw")
    for specs in ([str(tree), str(folder)], [str(folder), str(tree)], [str(folder / "x.jpg"), str(tree)]):
        source = FileSource(specs, selection=Selection(follow_links=True))
        found = [os.path.realpath(tree / name) for name in taken(source, tree)]
        assert len(found) == len(set(found)) == len(INSIDE) + 2


def test_globs_see_the_link_and_not_its_target(tree: Path) -> None:
    """They are about names below the source."""
    outside(tree)
    (tree / "link").symlink_to("../outside")
    (tree / "thumbs2").symlink_to("../outside/sub")
    chosen = Selection(include=["link/*.jpg"], exclude=["thumbs*"], follow_links=True)
    source = FileSource(str(tree), selection=chosen)
    assert taken(source, tree) == ["link/x.jpg"]
    assert left_out(source, tree)["thumbs2"] == "excluded (--exclude)"


def test_a_link_to_what_is_left_out_where_it_lies_is_followed(tree: Path) -> None:
    """Nothing is called read that is not."""
    (tree / "kept").symlink_to("raw")
    source = FileSource(str(tree), selection=Selection(exclude=["/raw"], follow_links=True))
    assert [name for name in taken(source, tree) if "/" in name] == [
        *("kept/c.jpg", "kept/deep/raw/g.JPG", "kept/thumbs/d.jpg", "thumbs/e.jpg")
    ]


def test_what_is_left_out_is_no_dead_letter_whatever_it_is(tree: Path) -> None:
    """A link to nothing, a FIFO."""
    (tree / "gone.lnk").symlink_to("nowhere")
    os.mkfifo(tree / "pipe.sock")
    source = FileSource(str(tree), selection=Selection(exclude=["*.lnk", "*.sock"]))
    assert left_out(source, tree) == dict.fromkeys(["gone.lnk", "pipe.sock"], "excluded (--exclude)")


def test_a_job_walks_the_same_when_it_goes_on(tree: Path) -> None:
    """What is wanted of folders is part of what the job is: kept, shown, and refused where it differs."""
    outside(tree)
    (tree / "link").symlink_to("../outside")
    chosen: dict[str, Any] = {"include": ["*.jpg"], "exclude": ["raw"], "follow_links": True}
    config = ServiceConfig(to="rows.db", job=Path("job"), **chosen)
    with JobCheckpoint(config, make_plan(config), make_source(config, "tree")) as books:
        listed = [entry.key for entry in books.entries() if isinstance(entry, Item)]
    assert read_status("job").fingerprints["source"] == f"{tree} --follow-links --include *.jpg --exclude raw"
    (tree / "link" / "z.jpg").touch()
    went_on, source = begun_with(read_status("job"), update=True)
    with JobCheckpoint(went_on, make_plan(went_on), source) as books:
        assert {entry.key for entry in books.entries()} == {*listed, str(tree / "link" / "z.jpg")}
        assert books.counts.filtered == 2
    other = ServiceConfig(to="rows.db", job=Path("job"), **{**chosen, "exclude": []})
    with pytest.raises(ConfigError, match="source was"):
        JobCheckpoint(other, make_plan(other), make_source(other, "tree"))


def test_globs_are_one_in_python_in_a_file_and_on_the_command_line(tree: Path) -> None:
    """One is as good as a list of one."""
    (tree / "c.yaml").write_text("include: '*.jpg'\nexclude: ['a', 'b']\nfollow_links: true\n")
    config = ServiceConfig.from_yaml(tree / "c.yaml")
    assert (config.include, config.exclude, config.follow_links) == (("*.jpg",), ("a", "b"), True)
    assert ServiceConfig(include=["*.jpg"]).include == ServiceConfig(include="*.jpg").include == ("*.jpg",)
