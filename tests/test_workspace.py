"""Folders of videos: whose they are, what is swept, and that nothing outside of them is ever deleted."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.engine.downloads import DiskBudget, Downloaded, Downloader, Workspace, video_id
from penstock.engine.downloads.workspace import VideoFolder
from penstock.errors import ConfigError, WorkerError
from penstock.tests.waiting import DEADLINE, wait_until


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work", "job")


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "/etc/passwd", "http://host/a/../b.mp4", "", "\udcff", "\0", "ä" * 999]
)
def test_a_key_is_never_part_of_a_path(workspace: Workspace, key: str) -> None:
    """Two keys have two folders, both below the workspace."""
    folder = workspace.folder(key)
    folder.make()
    assert folder.path.parent.parent == workspace.path
    assert [found.id for found in workspace.folders()] == [folder.id] == [video_id(key)]
    assert len(folder.id) == 20
    assert workspace.folder(key + "?").id != folder.id


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    """It stays as it is."""
    put(tmp_path / "photos" / "a.jpg")
    with pytest.raises(ConfigError, match="something else in it"):
        Workspace(tmp_path / "photos", "job")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_a_workspace_is_one_job_s(tmp_path: Path) -> None:
    """The same job finds it again, another one is refused."""
    Workspace(tmp_path / "work", "one")
    Workspace(tmp_path / "work", "one")
    with pytest.raises(ConfigError, match="another job"):
        Workspace(tmp_path / "work", "other")


def test_of_two_jobs_that_begin_at_once_one_has_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is refused, though both have seen an empty folder."""
    both, seen, fsync = threading.Barrier(2), threading.local(), os.fsync

    def meet(descriptor: int) -> None:
        if not hasattr(seen, "once"):  # the marker is written, and has not its name
            seen.once = True
            both.wait(DEADLINE)
        fsync(descriptor)

    def begin(owner: str) -> str:
        try:
            Workspace(tmp_path / "work", owner)
        except ConfigError as error:
            return str(error)
        return owner

    monkeypatch.setattr(os, "fsync", meet)
    with ThreadPoolExecutor(2) as threads:
        answers = set(threads.map(begin, ["one", "other"]))
    (owner,) = answers & {"one", "other"}
    (refusal,) = answers - {owner}
    assert f"the folder of another job ({owner})" in refusal
    assert [path.name for path in (tmp_path / "work").iterdir()] == [".penstock-work"]


def test_a_file_system_without_hard_links_has_workspaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one job, too."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    test_a_workspace_is_one_job_s(tmp_path)


def test_a_killed_first_start_is_begun_again(tmp_path: Path) -> None:
    """Its marker was not complete, and there is nothing else."""
    put(tmp_path / "work" / ".penstock-work.0123.tmp", "{")
    workspace = Workspace(tmp_path / "work", "job")
    workspace.sweep()
    assert workspace.names() == [".penstock-work", ".trash"]


def test_a_sweep_takes_what_nobody_can_go_on_with(workspace: Workspace) -> None:
    """What is being made or deleted; not what is complete, nor a beginning with its note."""
    folder = workspace.folder("a")
    kept = [put(folder.path / name) for name in ("video", "meta.json", "frames/1.jpg")]
    resumed = [put(workspace.folder("b").path / name) for name in ("video.part", "video.part.json")]
    lost = [put(folder.path / "frames.1.tmp" / "1.jpg"), put(folder.path / "meta.json.tmp")]
    lost += [
        put(folder.path / "video.part"),
        put(folder.path / "video.part.json"),
        put(workspace.folder("c").path / "video.part.json"),
    ]
    lost += [put(workspace.path / ".trash" / "0123" / "video")]
    assert workspace.sweep() == len(lost)
    assert [path for path in lost if path.exists()] == []
    assert [path for path in kept + resumed if not path.exists()] == []


def test_deleting_tells_the_bytes_and_lets_them_go(workspace: Workspace) -> None:
    """What is not there any more has none."""
    folder = workspace.folder("a")
    put(folder.video, "12345")
    put(folder.path / "frames" / "1.jpg", "123")
    workspace.budget.settle(folder.id, folder.size())
    assert (folder.size(), folder.size("video"), workspace.budget.used) == (8, 5, 8)
    assert folder.remove("video") == 5
    assert folder.remove("video") == 0
    assert folder.clear() == 3
    assert (folder.clear(), folder.size(), workspace.budget.used, list(workspace.folders())) == (0, 0, 0, [])


def test_a_video_of_no_use_is_downloaded_once_more_and_not_again(workspace: Workspace) -> None:
    """What else lies with it stays."""
    folder = workspace.folder("a")
    for name in ("video", "meta.json", "frames/1.jpg"):
        put(folder.path / name)
    assert folder.forget_video()
    assert folder.names() == ["again.json", "frames"]
    put(folder.video)
    assert not folder.forget_video()
    assert folder.video.exists()


def test_links_are_deleted_and_never_followed(workspace: Workspace, tmp_path: Path) -> None:
    """A link within a folder, one in place of it, and one on the way to it."""
    outside = put(tmp_path / "outside" / "photo.jpg")
    inside, replaced, moved = (workspace.folder(key) for key in "abc")
    inside.make()
    (inside.path / "frames").symlink_to(outside.parent)
    (inside.path / "video").symlink_to(outside)
    inside.clear()
    replaced.path.parent.mkdir(exist_ok=True)
    replaced.path.symlink_to(outside.parent)
    replaced.clear()
    (tmp_path / "outside" / moved.id).mkdir()
    put(tmp_path / "outside" / moved.id / "video")
    moved.path.parent.symlink_to(outside.parent)
    with pytest.raises(OSError, match=r"directory|levels"):
        workspace.remove(moved.id[:2], moved.id)
    assert [found.id for found in workspace.folders()] == []
    assert (outside.exists(), (tmp_path / "outside" / moved.id / "video").exists()) == (True, True)
    assert not replaced.path.is_symlink()


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "/etc"])
def test_a_path_that_leads_out_is_refused(workspace: Workspace, part: str) -> None:
    """Whoever made it."""
    put(workspace.path.parent / "photo.jpg")
    for parts in ([part], [part, "photo.jpg"], ["ab", part]):
        (workspace.path / "ab").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="no name of a file"):
            workspace.remove(*parts)
    assert (workspace.path.parent / "photo.jpg").exists()


def test_a_workspace_may_be_reached_through_a_link(tmp_path: Path) -> None:
    """Of the user's own, to a larger disk say."""
    (tmp_path / "large").mkdir()
    (tmp_path / "work").symlink_to("large")
    folder = Workspace(tmp_path / "work", "job").folder("a")
    put(folder.video)
    folder.clear()
    assert not (tmp_path / "large" / folder.id[:2]).exists()


# -- the disk budget --------------------------------------------------------------------------------------------------


def waiting(step: object, *args: object) -> tuple[threading.Thread, list[object]]:
    """A call in a thread, and what became of it."""
    done: list[object] = []

    def run() -> None:
        try:
            done.append(step(*args))  # type: ignore[operator]
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, done


def test_a_download_waits_until_others_have_been_cleaned_up(tmp_path: Path) -> None:
    """It counts for as much as the largest so far."""
    budget = DiskBudget(tmp_path, 100)
    budget.enter("a", lambda: 0)
    budget.settle("a", 60)
    thread, done = waiting(budget.enter, "b", lambda: 0)
    wait_until(lambda: budget._changed._waiters, "it waits")  # type: ignore[attr-defined]
    assert (done, budget.used) == ([], 60)
    budget.settle("a", 30)  # 30 and 60
    thread.join(DEADLINE)
    assert (done, budget.used) == ([None], 90)


def test_one_alone_is_let_in_whatever_its_size(tmp_path: Path) -> None:
    """A limit that is too small makes a job slow and does not end it."""
    budget = DiskBudget(tmp_path, 1)
    for name in "abc":
        budget.enter(name, lambda: 0)
        budget.settle(name, 1000)
        budget.leave(name)
    assert budget.used == 0


def test_a_download_that_is_larger_than_expected_counts_for_what_it_has(tmp_path: Path) -> None:
    """While it goes on."""
    budget, has = DiskBudget(tmp_path, 10**12), [0]
    budget.enter("a", lambda: has[0])
    expected = budget.used
    has[0] = expected + 5
    assert budget.used == expected + 5


def test_the_default_is_a_quarter_of_what_is_free_and_at_most_20_gb(tmp_path: Path) -> None:
    """Whichever is less."""
    assert DiskBudget(tmp_path, free=lambda: 4000).limit == 1000
    assert DiskBudget(tmp_path, free=lambda: 10**15).limit == 20 * 10**9
    assert DiskBudget(tmp_path, 5, free=lambda: 4000).limit == 5


def test_a_full_disk_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever makes room there; it is said once."""
    free = [10]
    budget = DiskBudget(tmp_path, 100, free=lambda: free[0])
    thread, done = waiting(budget.wait_for_space)
    wait_until(lambda: budget._changed._waiters, "it waits")  # type: ignore[attr-defined]
    free[0] = 10**9
    budget.leave("a")
    thread.join(DEADLINE)
    assert done == [None]
    assert "the disk is full" in caplog.text


def test_a_disk_that_refuses_though_there_is_room_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For a quota the disk is never full: a download would be begun anew without end."""
    attempts: list[str] = []

    def refuse(_: object, url: str, folder: VideoFolder) -> Downloaded:
        attempts.append(url)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Downloader, "_result", refuse)
    workspace = Workspace(tmp_path / "work", "job")
    monkeypatch.setattr(workspace.budget, "_free", lambda: 10**12)
    with Downloader(workspace) as downloader:
        thread, done = waiting(downloader.download, "http://host/a.mp4")
        wait_until(lambda: workspace.budget._changed._waiters, "it waits")  # type: ignore[attr-defined]
    thread.join(DEADLINE)
    assert [type(each) for each in done] == [WorkerError]
    assert len(attempts) == 2
    assert "is there a quota?" in caplog.text


def test_who_waits_for_room_is_told_that_all_is_over(tmp_path: Path) -> None:
    """Nobody is left hanging when a job is stopped."""
    budget = DiskBudget(tmp_path, 100)
    budget.settle("a", 100)
    thread, done = waiting(budget.enter, "b", lambda: 0)
    budget.close()
    thread.join(DEADLINE)
    assert [type(each) for each in done] == [WorkerError]
