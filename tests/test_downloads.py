"""Downloads as a whole: hosts, processes that are killed at any step, full disks, and what a later run finds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from penstock.engine import PipelineBuilder, Retry
from penstock.engine.core.policies import is_transient
from penstock.engine.downloads import Downloaded, Downloader, DownloadSettings, Workspace
from penstock.engine.downloads.hosts import Hosts, host_of
from penstock.engine.downloads.worker import DownloadRequest, download
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import (
    DeadlineError,
    DownloadError,
    HostStoppedError,
    PoisonItemError,
    UnreadableError,
    WorkerError,
)
from penstock.tests.flaky import built, finish
from penstock.tests.mounts import mounts
from penstock.tests.small_s3 import SmallS3
from penstock.tests.video_server import VideoServer
from penstock.tests.waiting import DEADLINE, patient, wait_until

pytestmark = pytest.mark.slow  # processes are started


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work", "job", 10**9)


@pytest.fixture
def settings(video_server: VideoServer) -> DownloadSettings:
    allowed = (video_server.host, video_server.host.replace("127.0.0.1", "localhost"))
    return DownloadSettings(
        allowed=allowed, stall=DEADLINE, deadline=DEADLINE, politeness=0, workers=2, extractors=("generic",)
    )


@pytest.fixture
def downloader(workspace: Workspace, settings: DownloadSettings) -> Iterator[Downloader]:
    with Downloader(workspace, settings) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def names(workspace: Workspace) -> list[str]:
    """Files below it, but its marker."""
    found = (path.relative_to(workspace.path) for path in workspace.path.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.name != ".penstock-work")


def test_a_video_that_is_there_is_taken_as_it_is(
    downloader: Downloader, workspace: Workspace, settings: DownloadSettings, video_server: VideoServer
) -> None:
    """Also by a later run: it is asked for once. Its bytes count until its folder is cleared."""
    url = video_server.url("ok.mp4")
    found = downloader.download(url)
    assert downloader.download(url) == found
    with Downloader(workspace, settings) as later:
        assert later.download(url) == found
    assert video_server.seen == {"/ok.mp4": 1}
    folder = workspace.folder(url)
    assert workspace.budget.used == folder.size() >= found.size
    folder.clear()
    assert (workspace.budget.used, names(workspace)) == (0, [])
    (report,) = downloader.hosts()
    assert (report.host, report.downloads, report.nbytes) == (host_of(url), 1, found.size)
    assert report.rate > 0


def test_a_video_that_is_named_twice_is_downloaded_once(
    downloader: Downloader, video_server: VideoServer, threads: ThreadPoolExecutor
) -> None:
    """At the same time, too."""
    video_server.let_go.set()
    found = list(threads.map(downloader.download, [video_server.url("hold.mp4")] * 4))
    assert (len({each.path for each in found}), video_server.seen) == (1, {"/hold.mp4": 1})


def test_a_host_is_asked_by_so_many_at_once_and_others_go_on(
    workspace: Workspace, settings: DownloadSettings, video_server: VideoServer, threads: ThreadPoolExecutor
) -> None:
    """Those that wait for it keep no worker."""
    with Downloader(workspace, replace(settings, per_host=1)) as downloader:
        held = [threads.submit(downloader.download, video_server.url(f"hold.mp4?{number}")) for number in range(3)]
        wait_until(lambda: video_server.held)
        assert downloader.download(video_server.url("ok.mp4").replace("127.0.0.1", "localhost")).size
        (transfer,) = downloader.transfers()
        assert transfer.url.startswith(video_server.url("hold.mp4?"))
        video_server.let_go.set()
        assert len({future.result(DEADLINE).path for future in held}) == 3
    assert video_server.most_held == 1


def test_a_host_that_refuses_again_and_again_is_left_alone(
    workspace: Workspace, settings: DownloadSettings, video_server: VideoServer
) -> None:
    """Its videos stay undone, for a later run; others' are downloaded."""
    with Downloader(workspace, replace(settings, refusals=2)) as downloader:
        with pytest.raises(DownloadError):
            downloader.download(video_server.url("refused.mp4"))
        for name in ("bot.mp4", "ok.mp4"):
            with pytest.raises(HostStoppedError, match="refused 2 downloads in a row"):
                downloader.download(video_server.url(name))
        assert downloader.download(video_server.url("ok.mp4").replace("127.0.0.1", "localhost")).size
        assert [report.is_stopped for report in downloader.hosts()] == [False, True]
    assert (video_server.seen["/refused.mp4"], video_server.seen["/bot.mp4"], video_server.seen["/ok.mp4"]) == (1, 1, 1)
    with Downloader(Workspace(workspace.path, "job"), settings) as later:
        assert later.download(video_server.url("ok.mp4")).size


def test_a_job_asks_again_when_it_was_told_to(downloader: Downloader, video_server: VideoServer) -> None:
    """A stage of the engine with its policy, and not a moment before."""
    video_server.after = "1"
    policy = Retry(within=0.5, first=0.001, longest=0.001)  # a wait that is longer is the host's, not the video's
    builder = PipelineBuilder().add_source([video_server.url("busy.mp4")]).pipe(downloader.download, on_failure=policy)
    (found,) = finish(built(builder))
    assert found.path.exists()
    first, second = video_server.times
    assert second - first >= 1


def test_a_killed_worker_s_download_is_gone_on_with(
    downloader: Downloader, video_server: VideoServer, threads: ThreadPoolExecutor, video: bytes
) -> None:
    """By another one, where it was."""
    future = threads.submit(downloader.download, video_server.url("stall-once.mp4"))
    assert video_server.served.acquire(timeout=DEADLINE)
    wait_until(lambda: [each for each in downloader.transfers() if each.nbytes >= len(video) // 2])
    for pid in downloader._pool.pids:  # pyright: ignore[reportPrivateUsage]
        os.kill(pid, signal.SIGKILL)
    assert future.result(DEADLINE).path.read_bytes() == video
    assert video_server.ranges == [("/stall-once.mp4", len(video) // 2)]


def test_a_page_that_drips_is_ended_by_killing_its_process(
    workspace: Workspace, settings: DownloadSettings, video_server: VideoServer
) -> None:
    """Nothing else ends yt-dlp in time; what it has written is removed."""
    with Downloader(workspace, replace(settings, way="yt-dlp", deadline=patient(0.4))) as downloader:
        with pytest.raises(DeadlineError):
            downloader.download(video_server.url("drip.mp4"))
        assert (names(workspace), workspace.budget.used) == ([], 0)
        assert downloader.download(video_server.url("ok.mp4")).size  # by another process


def test_downloads_are_ended_in_the_middle(
    downloader: Downloader, workspace: Workspace, video_server: VideoServer, threads: ThreadPoolExecutor, video: bytes
) -> None:
    """Those under way, those that wait for their host, and those that come later; what has come stays."""
    under_way = [threads.submit(downloader.download, video_server.url(f"stall.mp4?{number}")) for number in range(4)]
    wait_until(lambda: sum(each.nbytes >= len(video) // 2 for each in downloader.transfers()) == 2)
    downloader.close()
    for future in under_way:
        with pytest.raises(WorkerError):
            future.result(DEADLINE)
    with pytest.raises((WorkerError, RuntimeError)):
        downloader.download(video_server.url("ok.mp4"))
    assert {name.rpartition("/")[2] for name in names(workspace)} == {"video.part", "video.part.json"}


# -- killed at any step -----------------------------------------------------------------------------------------------

_STEPS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"})


def _kill_at(step: int, below: str) -> None:
    """End this process by SIGKILL before its so-manieth step on the disk below a folder."""
    count = 0

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _STEPS and (below in str(arguments[0]) or event != "open"):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def download_killed(step: int, request: DownloadRequest) -> Downloaded:
    _kill_at(step, request.folder)
    return download(request)


def clear_killed(step: int, path: str, key: str) -> int:
    workspace = Workspace(path, "job", 10**9)
    _kill_at(step, path)
    return workspace.folder(key).clear()


_A_RUN = """
import sys
from penstock.engine.downloads import Downloader, DownloadSettings, Workspace
work, url, host = sys.argv[1:]
with Downloader(Workspace(work, "job"), DownloadSettings(allowed=(host,), workers=1)) as downloader:
    downloader.download(url)
"""


@pytest.mark.kills
def test_a_run_killed_in_the_middle_is_gone_on_with(
    workspace: Workspace, settings: DownloadSettings, video_server: VideoServer, video: bytes
) -> None:
    """Its workers end with it, and what they had is not asked for again."""
    url = video_server.url("stall-once.mp4")
    folder = workspace.folder(url)
    with subprocess.Popen([sys.executable, "-c", _A_RUN, str(workspace.path), url, video_server.host]) as run:
        wait_until(lambda: folder.size("video.part") >= len(video) // 2)
        family = psutil.Process(run.pid).children(recursive=True)
        run.kill()
    assert len(family) == 2  # fork server and worker
    assert psutil.wait_procs(family, DEADLINE)[1] == []
    workspace.sweep()
    with Downloader(workspace, settings) as later:
        assert later.download(url).path.read_bytes() == video
    assert video_server.ranges == [("/stall-once.mp4", len(video) // 2)]
    assert names(workspace) == [f"{folder.id[:2]}/{folder.id}/{name}" for name in ("meta.json", "video")]


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1, preload=[DownloadRequest.__module__]) as made:
        yield made


@pytest.mark.kills
@pytest.mark.parametrize("name", ["ok.mp4", "chunked.mp4"])
def test_a_download_killed_at_any_step_is_done_by_the_next_run(
    workspace: Workspace,
    settings: DownloadSettings,
    video_server: VideoServer,
    video: bytes,
    name: str,
    pool: WorkerPool,
) -> None:
    """Before and after each file that it opens, renames and removes; nothing is left behind."""
    died = 0
    for step in range(1, 40):
        folder = workspace.folder(f"{name} {step}")
        folder.make()
        request = DownloadRequest(video_server.url(name), str(folder.path), settings)
        try:
            pool.submit(download_killed, step, request).result(DEADLINE)
        except PoisonItemError:
            died += 1
        else:
            break  # it has no more steps
        workspace.sweep()
        assert folder.video.exists() <= (folder.read_meta() is not None)
        if not folder.video.exists():
            download(request)
        assert folder.video.read_bytes() == video
        folder.sweep()
        assert folder.names() == ["meta.json", "video"]
    assert died > 3


@pytest.mark.kills
def test_a_clean_up_killed_at_any_step_is_done_by_the_next_run(workspace: Workspace, pool: WorkerPool) -> None:
    """What is in the trash is nobody's."""
    died = 0
    for step in range(1, 40):
        folder = workspace.folder(str(step))
        (folder.path / "frames").mkdir(parents=True)
        for name in ("video", "meta.json", "frames/1.jpg", "frames/2.jpg"):
            (folder.path / name).write_bytes(b"x")
        try:
            pool.submit(clear_killed, step, str(workspace.path), str(step)).result(DEADLINE)
        except PoisonItemError:
            died += 1
        else:
            break
        assert folder.names() in ([], ["frames", "meta.json", "video"])  # whole, or gone
        folder.clear()
        workspace.sweep()
        assert names(workspace) == []
    assert died > 1


# -- disks, stores, hosts ---------------------------------------------------------------------------------------------

_ON_A_FULL_DISK = """
import logging, os, sys, threading
from penstock.engine.downloads import Downloader, DownloadSettings, Workspace
place, url, host = sys.argv[1:]
workspace = Workspace(place + "/work", "job")
ballast = place + "/ballast"
class Told(logging.Handler):
    def emit(self, record):
        if "the disk is full" in record.getMessage():
            os.unlink(ballast)
            print("full")
logging.getLogger("penstock.downloads").addHandler(Told())
with Downloader(workspace, DownloadSettings(way="fetch", allowed=(host,), workers=1)) as downloader:
    fd = os.open(ballast, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, os.statvfs(place).f_bavail * os.statvfs(place).f_bsize - 12288)
    os.close(fd)
    print(downloader.download(url).size, downloader.hosts()[0].failures)
"""


def test_a_full_disk_pauses_a_download(tmp_path: Path, video_server: VideoServer, video: bytes) -> None:
    """It goes on when somebody has made room, and nothing has failed."""
    with mounts() as space:
        space.tmpfs(tmp_path, "32m")
        url = video_server.url("ok.mp4")
        done = space.run(sys.executable, "-c", _ON_A_FULL_DISK, str(tmp_path), url, video_server.host, timeout=DEADLINE)
    assert (done.stdout.split(), done.stderr) == (["full", str(len(video)), "0"], "")


def test_an_object_of_a_store_is_downloaded_whole(downloader: Downloader, small_s3: SmallS3, video: bytes) -> None:
    """What its store knows of it is kept. One that is not there, or no video, is refused."""
    etag = small_s3.put("videos/a.mp4", video)
    small_s3.put("videos/b.mp4", b"no video")
    found = downloader.download("s3://bucket/videos/a.mp4")
    assert (found.path.read_bytes(), found.way, found.etag, found.is_complete) == (video, "store", etag, True)
    with pytest.raises(UnreadableError):
        downloader.download("s3://bucket/videos/b.mp4")
    with pytest.raises(DownloadError, match="is not there") as raised:
        downloader.download("s3://bucket/videos/c.mp4")
    assert not is_transient(raised.value)
    assert [report.host for report in downloader.hosts()] == ["bucket"]


@pytest.mark.parametrize("changed", [False, True])
def test_an_object_is_gone_on_with_if_it_is_the_same(
    downloader: Downloader, small_s3: SmallS3, workspace: Workspace, video: bytes, changed: bool
) -> None:
    """By its etag; each piece is asked for with it."""
    etag = small_s3.put("a.mp4", video)
    folder = workspace.folder("s3://bucket/a.mp4")
    folder.make()
    (folder.path / "video.part").write_bytes(video[:1000])
    note = {"tag": '"another"' if changed else f'"{etag}"', "total": len(video), "boot": boot_id()}
    (folder.path / "video.part.json").write_text(json.dumps(note))
    assert downloader.download("s3://bucket/a.mp4").path.read_bytes() == video
    assert small_s3.headers["if-match"] == f'"{etag}"'
    assert small_s3.headers["range"] == f"bytes={0 if changed else 1000}-{len(video) - 1}"


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_host_is_not_asked_before_it_said() -> None:
    """Not for another video either."""
    hosts, busy = Hosts(2, 5), DownloadError("HTTP 429")
    busy.is_refusal, busy.retry_after = True, 0.1
    with hosts.turn("http://host/a"):
        failed = monotonic()
        hosts.failed("http://host/a", busy)
    with hosts.turn("http://host/b"):
        assert monotonic() - failed >= 0.1
    with hosts.turn("http://other/b"):
        pass


def test_a_host_that_wants_to_be_asked_much_later_is_left_alone() -> None:
    """At once: nobody waits an hour for it."""
    hosts, busy = Hosts(2, 5), DownloadError("HTTP 503")
    busy.retry_after = 3600.0
    with hosts.turn("http://host/a"), pytest.raises(HostStoppedError, match="asked not to be asked again so soon"):
        hosts.failed("http://host/a", busy)
    with pytest.raises(HostStoppedError), hosts.turn("http://host/b"):
        pass


def test_another_answer_in_between_is_no_refusal_in_a_row() -> None:
    """A video that is not there says that the host answers."""
    hosts, refusal, missing = Hosts(1, 2), DownloadError("HTTP 403"), DownloadError("HTTP 404")
    refusal.is_refusal = True
    with hosts.turn("http://host/a"):
        for error in (refusal, missing, refusal):
            hosts.failed("http://host/a", error)
        hosts.went_well("http://host/a", 1, 1.0)
        hosts.failed("http://host/a", refusal)
        with pytest.raises(HostStoppedError):
            hosts.failed("http://host/a", refusal)
