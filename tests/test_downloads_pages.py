"""Videos behind pages, by yt-dlp in a worker process: what it calls a success is one only where a video lies there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.core.policies import is_transient
from penstock.engine.downloads import Downloaded, DownloadSettings
from penstock.engine.downloads.address_guard import guarded
from penstock.engine.downloads.page import PageDownload, is_known_site, python_session
from penstock.engine.downloads.page_errors import failure_of
from penstock.engine.downloads.worker import DownloadRequest, download
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import ConfigError, DownloadError, ItemError, TooLargeError, UnreadableError, VideoError
from penstock.tests.clips import make_clip
from penstock.tests.video_server import NO_SUCCESSES, VideoServer
from penstock.tests.waiting import DEADLINE, patient

pytestmark = pytest.mark.slow  # importing yt-dlp takes a second


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """One process for all: what a download leaves in it must not change the next one."""
    with WorkerPool(1, preload=[DownloadRequest.__module__], env={"YTDLP_NO_PLUGINS": "1"}) as made:
        yield made


class Pages:
    """A video's folder, and downloads into it in a worker."""

    def __init__(self, path: Path, server: VideoServer, pool: WorkerPool) -> None:
        self.path, self.server, self._pool = path, server, pool
        self.settings = DownloadSettings(
            way="yt-dlp",
            allowed=(server.host,),
            stall=DEADLINE,
            deadline=DEADLINE,
            politeness=0,
            extractors=("generic", "html5"),
        )

    def get(self, name: str, **changed: Any) -> Downloaded:
        (self.path / "video").unlink(missing_ok=True)  # else it is taken as it is
        request = DownloadRequest(self.server.url(name), str(self.path), replace(self.settings, **changed))
        return self._pool.submit(download, request).result(DEADLINE)

    def failure(self, name: str, **changed: Any) -> Exception:
        with pytest.raises((ItemError, ConfigError)) as raised:
            self.get(name, **changed)
        return raised.value

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if not path.name.endswith(".tmp"))


@pytest.fixture
def pages(tmp_path: Path, video_server: VideoServer, pool: WorkerPool) -> Pages:
    return Pages(tmp_path, video_server, pool)


@pytest.mark.parametrize("name", ["page", "ok.mp4", "cut-after-a-look.mp4"])
def test_a_video_is_there_under_its_fixed_name(pages: Pages, name: str, video: bytes) -> None:
    """Whatever its page calls it; a connection that is cut once is gone on with."""
    found = pages.get(name)
    assert (found.path, found.path.read_bytes()) == (pages.path / "video", video)
    assert (found.way, found.is_complete, pages.names) == ("yt-dlp", None, ["meta.json", "video"])
    if name == "page":
        assert found.title.startswith("../../etc/passwd")


def test_a_page_is_told_from_a_file_by_what_comes(pages: Pages, video: bytes) -> None:
    """Its own fetch begins, and yt-dlp goes on where it is a page that says so."""
    assert pages.get("page", way="auto").way == "yt-dlp"
    assert pages.server.seen["/page"] > 1
    assert pages.get("ok", way="auto").way == "fetch"


def test_a_stream_in_segments_is_a_video(pages: Pages, tmp_path: Path) -> None:
    """Told by its name; put together without any other program."""
    pages.server.segment = make_clip(tmp_path / "clip.ts", frames=12).read_bytes()
    found = pages.get("stream.m3u8", way="auto")
    assert (found.path.read_bytes(), found.way) == (pages.server.segment, "yt-dlp")


def test_by_default_all_extractors_may_be_used(pages: Pages, video: bytes) -> None:
    """Those of a site, and the one that looks at any page."""
    assert pages.get("page", extractors=None).path.read_bytes() == video


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("https://www.youtube.com/watch?v=aaaaaaaaaaa", True),
        ("https://vimeo.com/123456", True),
        ("https://example.com/watch/1", False),
        ("https://example.com/a.mp4", False),
    ],
)
def test_a_site_that_an_extractor_is_made_for_is_not_asked_twice(pool: WorkerPool, url: str, known: bool) -> None:
    """It is told by the URL alone."""
    assert pool.submit(is_known_site, url).result(DEADLINE) is known


@pytest.mark.parametrize(("name", "status", "transient", "refusal"), NO_SUCCESSES)
def test_an_answer_says_whether_it_may_come_another_time(
    pages: Pages, name: str, status: int, transient: bool, refusal: bool
) -> None:
    """As it does where the project's own fetch asks."""
    error = pages.failure(name)
    assert isinstance(error, DownloadError)
    assert (error.status, is_transient(error), error.is_refusal, pages.names) == (status, transient, refusal, [])


def test_a_server_says_when_to_ask_again(pages: Pages) -> None:
    """Retry-After in seconds."""
    error = pages.failure("busy.mp4")
    assert isinstance(error, DownloadError)
    assert error.retry_after == 7.0


@pytest.mark.parametrize("name", ["truncated.mp4", "hole.m3u8", "no-video-page"])
def test_what_it_does_not_get_is_a_failure(pages: Pages, tmp_path: Path, name: str) -> None:
    """A segment that is missing, too: it would be a hole of some seconds."""
    pages.server.segment = make_clip(tmp_path / "clip.ts", frames=12).read_bytes()
    (tmp_path / "clip.ts").unlink()
    assert isinstance(pages.failure(name), DownloadError)
    assert pages.names == []


def test_a_file_cut_without_a_length_is_not_taken(pages: Pages) -> None:
    """It calls that a success."""
    error = pages.failure("cut-without-length.mp4")
    assert "did not say how much" in str(error)
    assert is_transient(error)
    assert pages.names == []


@pytest.mark.parametrize("name", ["html.mp4", "playlist.mp4"])
def test_what_is_no_video_is_not_taken(pages: Pages, name: str) -> None:
    """It calls HTML that is served as a video a success."""
    assert isinstance(pages.failure(name), UnreadableError | DownloadError | VideoError)
    assert pages.names == []


@pytest.mark.parametrize("name", ["endless.mp4", "endless-length.mp4"])
def test_a_video_is_never_larger_than_allowed(pages: Pages, name: str, video: bytes) -> None:
    """It looks at the length that is promised only: bytes are counted as they come."""
    assert isinstance(pages.failure(name, max_bytes=2 * len(video)), TooLargeError)
    assert pages.names == []
    kept = sum(path.stat().st_size for path in pages.path.rglob("*") if path.is_file())
    assert kept < 64 * len(video) + 2**24


def test_a_file_that_has_changed_is_never_put_together_with_its_beginning(pages: Pages, video: bytes) -> None:
    """It sends no If-Range: so nothing is gone on with from one attempt to the next."""
    pages.failure("truncated.mp4")
    assert pages.get("changed.mp4").path.read_bytes() == video


def test_a_stall_ends(pages: Pages) -> None:
    """It is transient."""
    error = pages.failure("stall.mp4", stall=patient(0.1))
    assert isinstance(error, DownloadError)
    assert is_transient(error)


@pytest.mark.parametrize("name", ["to-file.mp4", "inward.mp4", "inward-list.m3u8"])
def test_a_redirect_leads_to_no_file_and_to_no_host_inside(pages: Pages, name: str) -> None:
    """Whoever follows it; nor does a playlist."""
    error = pages.failure(name)
    assert isinstance(error, DownloadError)
    assert not is_transient(error)
    if name != "to-file.mp4":
        assert "--allow-host" in str(error)


def test_no_program_of_the_machine_s_is_started_for_a_video(pages: Pages) -> None:
    """It would connect to wherever the page says, and nobody would ask whether it may."""
    error = pages.failure("program.smil")
    assert "format is not available" in str(error)
    assert not is_transient(error)


def test_a_host_inside_is_refused_unless_it_is_allowed(pages: Pages) -> None:
    """Before it is asked anything."""
    assert "--allow-host" in str(pages.failure("ok.mp4", allowed=()))
    assert pages.server.seen == {}


def test_cookies_are_sent_and_their_file_stays_as_it_is(pages: Pages, tmp_path: Path) -> None:
    """It is never written, no copy of it lies anywhere, and no message quotes it."""
    host = pages.server.host.partition(":")[0]
    text = f"# Netscape HTTP Cookie File\n{host}\tFALSE\t/\tFALSE\t0\tsession\tMARKER\n"
    (tmp_path / "cookies.txt").write_text(text)
    pages.get("ok.mp4", cookies=str(tmp_path / "cookies.txt"))
    assert "session=MARKER" in pages.server.cookies
    assert (tmp_path / "cookies.txt").read_text() == text
    (tmp_path / "cookies.txt").unlink()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"MARKER" in path.read_bytes()] == []
    assert isinstance(pages.failure("ok.mp4", cookies=str(tmp_path / "cookies.txt")), ConfigError)


def test_no_secret_of_a_url_is_told(pages: Pages) -> None:
    """Neither in failures nor beside the video."""
    pages.get("ok.mp4?X-Amz-Signature=MARKER")
    assert "MARKER" not in (pages.path / "meta.json").read_text()
    assert "MARKER" not in str(pages.failure("missing.mp4?X-Amz-Signature=MARKER"))


# -- by themselves ----------------------------------------------------------------------------------------------------


def test_the_guard_asks_about_each_connection_and_only_within_its_block() -> None:
    """By its address, after the name was resolved."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with guarded([]), pytest.raises(DownloadError, match=r"127\.0\.0\.1, not an address of the internet"):
            socket.create_connection(("localhost", port))
        with guarded([f"localhost:{port}"]):
            socket.create_connection(("localhost", port)).close()
            with pytest.raises(DownloadError):
                socket.create_connection(("127.0.0.1", port))
            with socket.socket() as unresolved, pytest.raises(DownloadError):
                unresolved.connect(("localhost", port))
        socket.create_connection(("127.0.0.1", port)).close()


def test_requests_go_by_nothing_that_the_guard_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they would by curl, where its package is installed and a site wants a browser."""
    import yt_dlp.networking as networking
    from yt_dlp.networking import common

    curl = type("CurlCFFIRH", (networking.RequestHandler,), {"_send": None, "__init__": lambda *_, **__: None})
    monkeypatch.setitem(vars(common)["_REQUEST_HANDLERS"], "CurlCFFI", curl)
    with python_session({"quiet": True}) as session:
        assert {*session._request_director.handlers} >= {"Urllib"}
        assert "CurlCFFI" not in session._request_director.handlers


def test_plugins_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video_server: VideoServer) -> None:
    """They are any package on the path."""
    plugin = tmp_path / "path" / "yt_dlp_plugins" / "extractor" / "own.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(f"open({str(tmp_path / 'was run')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    with WorkerPool(1, preload=[DownloadRequest.__module__], env={"YTDLP_NO_PLUGINS": "1"}) as pool:
        pages = Pages(tmp_path / "video", video_server, pool)
        pages.path.mkdir()
        assert pages.get("ok.mp4", extractors=None).size
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize(
    ("info", "why"),
    [
        ({"is_live": True}, "a live stream"),
        ({"live_status": "is_upcoming"}, "a live stream"),
        ({"duration": 61}, "61 s long; max_duration allows 60"),
        ({"duration": 60, "live_status": "was_live"}, None),
        ({}, None),
    ],
)
def test_what_is_not_wanted_is_told_by_its_page(tmp_path: Path, info: dict[str, Any], why: str | None) -> None:
    """Before anything is downloaded."""
    page = PageDownload("http://host/a", tmp_path, DownloadSettings(max_duration=60))
    assert page.decline(info) == why


def test_a_bot_is_told_by_words() -> None:
    """The site asks to sign in, and has no number for it; it says nothing about the video. One's age is about that."""
    for words, refusal in (("Sign in to confirm you\u2019re not a bot", True), ("Sign in to confirm your age", False)):
        error = failure_of("http://host/a", RuntimeError(f"ERROR: [youtube] a: {words}"))
        assert isinstance(error, DownloadError)
        assert (error.is_refusal, is_transient(error)) == (refusal, refusal)
