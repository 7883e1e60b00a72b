"""Files behind links: what is resumed, what is begun again, what is refused, and that half a video is never a video."""

from __future__ import annotations

import fcntl
import json
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.core.policies import is_transient
from penstock.engine.downloads import Downloaded, DownloadSettings
from penstock.engine.downloads.part_file import PartFile
from penstock.engine.downloads.sniff import kind_of
from penstock.engine.downloads.worker import DownloadRequest, download
from penstock.engine.sources.answer import seconds_of
from penstock.errors import (
    ConfigError,
    DeadlineError,
    DownloadError,
    ItemError,
    ReadError,
    TooLargeError,
    UnreadableError,
    VideoError,
)
from penstock.tests.video_server import NO_SUCCESSES, TAG, VideoServer
from penstock.tests.waiting import DEADLINE, patient


class Folder:
    """A video's folder, and downloads into it in this process."""

    def __init__(self, path: Path, server: VideoServer) -> None:
        self.path = path
        self.settings = DownloadSettings(way="fetch", allowed=(server.host,), stall=DEADLINE, deadline=DEADLINE)
        self.server = server

    def get(self, name: str, **changed: Any) -> Downloaded:
        return download(DownloadRequest(self.server.url(name), str(self.path), replace(self.settings, **changed)))

    def failure(self, name: str, **changed: Any) -> ItemError:
        with pytest.raises(ItemError) as raised:
            self.get(name, **changed)
        return raised.value

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())


@pytest.fixture
def folder(tmp_path: Path, video_server: VideoServer) -> Folder:
    return Folder(tmp_path, video_server)


@pytest.mark.parametrize("name", ["ok.mp4", "chunked.mp4", "moved.mp4", "ok", "no-ranges.mp4?cut=no"])
def test_a_video_is_there_whole_with_what_is_known_of_it(folder: Folder, name: str, video: bytes) -> None:
    """By whatever way its bytes came."""
    folder.server.seen["/no-ranges.mp4"] = 1
    found = folder.get(name)
    assert (found.path, found.path.read_bytes(), found.size) == (folder.path / "video", video, len(video))
    assert (found.is_complete, found.way, folder.names) == (True, "fetch", ["meta.json", "video"])
    assert Downloaded.load(folder.path) == found


@pytest.mark.parametrize(("name", "status", "transient", "refusal"), NO_SUCCESSES)
def test_an_answer_says_whether_it_may_come_another_time(
    folder: Folder, name: str, status: int, transient: bool, refusal: bool
) -> None:
    """And whether the host does not want to be asked."""
    error = folder.failure(name)
    assert isinstance(error, DownloadError)
    assert (error.status, is_transient(error), error.is_refusal, folder.names) == (status, transient, refusal, [])


def test_a_server_says_when_to_ask_again(folder: Folder, video: bytes) -> None:
    """Retry-After in seconds."""
    assert folder.failure("busy.mp4").retry_after == 7.0
    assert folder.get("busy.mp4").size == len(video)


@pytest.mark.parametrize("name", ["cut-once.mp4", "stall-once.mp4"])
def test_what_was_cut_off_is_gone_on_with(folder: Folder, name: str, video: bytes) -> None:
    """From the byte where it ended, if it still is the same file."""
    assert is_transient(folder.failure(name, stall=patient(0.1)))
    assert folder.names == ["video.part", "video.part.json"]
    assert folder.get(name).path.read_bytes() == video
    assert folder.server.ranges == [(f"/{name}", len(video) // 2)]
    assert folder.names == ["meta.json", "video"]


@pytest.mark.parametrize(
    "name", ["changed.mp4", "ignores-if-range.mp4", "shorter.mp4", "wrong-range.mp4", "long-range.mp4"]
)
def test_a_file_that_has_changed_is_begun_again(folder: Folder, name: str, video: bytes) -> None:
    """Old and new bytes are never put together, also where the server would have it so."""
    assert is_transient(folder.failure(name))
    if name != "changed.mp4":  # there the whole is sent at once
        assert is_transient(folder.failure(name))
        assert folder.names == []
    assert folder.get(name).path.read_bytes() == video


def test_a_rest_that_comes_in_parts_is_gone_on_with(folder: Folder, video: bytes) -> None:
    """How long the whole is was said at the beginning, and holds where a part says it no more."""
    for _ in range(2):
        assert is_transient(folder.failure("short-range.mp4"))
    assert folder.get("short-range.mp4").path.read_bytes() == video
    half = len(video) // 2
    assert folder.server.ranges == [("/short-range.mp4", half), ("/short-range.mp4", half + 9)]


@pytest.mark.parametrize("name", ["weak-tag.mp4", "no-ranges.mp4"])
def test_without_a_strong_tag_or_ranges_all_comes_anew(folder: Folder, name: str, video: bytes) -> None:
    """A weak one says that two files mean the same, not that they have the same bytes."""
    folder.failure(name)
    assert ("video.part" in folder.names) == (name == "no-ranges.mp4")
    assert folder.get(name).path.read_bytes() == video
    assert folder.server.ranges == ([] if name == "weak-tag.mp4" else [(f"/{name}", len(video) // 2)])


@pytest.mark.parametrize("name", ["truncated.mp4", "cut-chunks.mp4"])
def test_a_cut_connection_is_no_success(folder: Folder, name: str) -> None:
    """Whether the length or the chunks say so."""
    for _ in range(3):
        error = folder.failure(name)
        assert isinstance(error, DownloadError)
        assert is_transient(error)
        assert "video" not in folder.names


def test_a_file_cut_without_a_length_is_tried_again_and_never_taken(folder: Folder) -> None:
    """Nobody knows whether it is whole: that it cannot be opened says that it is not."""
    error = folder.failure("cut-without-length.mp4")
    assert is_transient(error)
    assert "did not say how much" in str(error)
    assert folder.names == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("html.mp4", "a page of HTML"),
        ("playlist.mp4", "a playlist"),
        ("empty.mp4", "no video"),
        ("page", "is a page, not a file"),
        ("hole.m3u8", "is a page, not a file"),
    ],
)
def test_what_is_no_video_is_refused_by_its_first_bytes(folder: Folder, name: str, what: str) -> None:
    """Whatever it is called and served as."""
    error = folder.failure(name)
    assert isinstance(error, UnreadableError)
    assert what in str(error)
    assert folder.names == []


def test_what_only_begins_like_a_video_is_refused_when_it_is_there(folder: Folder) -> None:
    """It is opened before it counts."""
    folder.server.video = b"\0\0\0\x18ftypisom" + bytes(5000)
    assert isinstance(folder.failure("ok.mp4"), VideoError)
    assert folder.names == []


def test_a_video_that_is_too_long_is_refused(folder: Folder) -> None:
    """When it is there: nothing said so before. Else its length is known."""
    error = folder.failure("ok.mp4", max_duration=0.3)
    assert "max_duration allows 0.3" in str(error)
    assert (is_transient(error), folder.names) == (False, [])
    assert folder.get("ok.mp4", max_duration=0.5).duration_s == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["to-file.mp4", "inward.mp4"])
def test_a_redirect_leads_to_no_file_and_to_no_host_inside(folder: Folder, name: str) -> None:
    """Each redirect is a new URL."""
    error = folder.failure(name)
    assert isinstance(error, ReadError)
    assert not is_transient(error)
    assert folder.names == []


@pytest.mark.parametrize("name", ["endless.mp4", "endless-length.mp4", "ok.mp4"])
def test_a_video_is_never_larger_than_allowed(folder: Folder, name: str, video: bytes) -> None:
    """By what is promised, and by what comes."""
    error = folder.failure(name, max_bytes=len(video) - 1)
    assert isinstance(error, TooLargeError)
    assert "max_file_bytes" in str(error)
    assert folder.names == []


@pytest.mark.parametrize("name", ["drip.mp4", "stall.mp4"])
def test_a_download_has_a_deadline(folder: Folder, name: str) -> None:
    """However regularly something comes. What came stays: another run may have more time."""
    assert isinstance(folder.failure(name, deadline=patient(0.1)), DeadlineError)
    assert folder.names == ["video.part", "video.part.json"]


def test_a_server_that_sends_nothing_any_more_is_left(folder: Folder) -> None:
    """Long before the deadline, and what came stays."""
    error = folder.failure("stall.mp4", stall=patient(0.1))
    assert is_transient(error)
    assert "nothing came for too long" in str(error)
    assert folder.names == ["video.part", "video.part.json"]


def test_a_part_that_is_whole_is_asked_for_once_more(folder: Folder, video: bytes) -> None:
    """Killed between its last byte and its name: nobody has said that all of it is this file's."""
    (folder.path / "video.part").write_bytes(video)
    note = {"tag": TAG, "total": len(video), "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    (folder.path / "video.part.json").write_text(json.dumps(note))
    assert folder.get("ok.mp4").path.read_bytes() == video
    assert folder.server.ranges == [("/ok.mp4", len(video) - 1)]


@pytest.mark.parametrize(
    "note", ["", "[]", "{}", '{"tag": 1}', '{"tag": "\\"one\\"", "total": null, "boot": "before a power failure"}']
)
def test_a_part_whose_note_says_nothing_is_begun_again(folder: Folder, video: bytes, note: str) -> None:
    """Or was written before the machine was started: then a file may be longer than what was written of it."""
    (folder.path / "video.part").write_bytes(bytes(100))
    (folder.path / "video.part.json").write_text(note)
    assert folder.get("ok.mp4").path.read_bytes() == video
    assert folder.server.ranges == []


def test_two_processes_do_not_write_one_part(folder: Folder) -> None:
    """A killed job's worker may live a moment longer than it."""
    with (folder.path / "video.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        error = folder.failure("ok.mp4")
    assert is_transient(error)
    assert "another process" in str(error)


def test_a_part_that_another_process_has_begun_anew_is_not_taken_for_one_s_own(tmp_path: Path) -> None:
    """The next run swept it while this one still wrote: then it has no name to give any more."""
    with PartFile(tmp_path, 99) as part:
        part.begin(TAG, 5)
        part.write(b"whole")
        part.path.unlink()
        part.path.write_bytes(b"be")
        with pytest.raises(DownloadError, match="another process") as raised:
            part.finish({})
    assert is_transient(raised.value)
    assert not (tmp_path / "video").exists()
    assert part.path.read_bytes() == b"be"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("9" * 40, 999_999_999.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        *((wrong, None) for wrong in (None, "", "-1", "soon", "1.5", "\u0661", "Wed, 99 Oct 2015")),
    ],
)
def test_when_to_ask_again_is_a_number_of_seconds_or_a_date(said: str | None, seconds: float | None) -> None:
    """What is neither says nothing."""
    assert seconds_of(said) == seconds


def test_when_to_ask_again_may_be_a_date_to_come() -> None:
    """In seconds from now."""
    found = seconds_of(formatdate(time.time() + 3600, usegmt=True))
    assert found is not None
    assert 3500 - patient(10) < found <= 3600


def test_no_secret_of_a_url_is_told(folder: Folder) -> None:
    """Neither in failures nor beside the video."""
    assert "MARKER" not in str(folder.failure("missing.mp4?X-Amz-Signature=MARKER"))
    url = f"http://user:MARKER@{folder.server.host}/ok.mp4"
    with pytest.raises(ReadError, match="credentials in a URL") as raised:
        download(DownloadRequest(url, str(folder.path), folder.settings))
    assert "MARKER" not in str(raised.value)
    folder.get("ok.mp4?X-Amz-Signature=MARKER&sig=MARKER")
    assert "MARKER" not in (folder.path / "meta.json").read_text()


def test_a_host_inside_is_refused_unless_it_is_allowed(folder: Folder) -> None:
    """Links come from strangers."""
    assert "--allow-host" in str(folder.failure("ok.mp4", allowed=()))
    assert folder.server.seen == {}


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x20ftypisom", "video"),
        (b"\x1a\x45\xdf\xa3", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"RIFF\0\0\0\0WAVE", "other"),
        (bytes([0x47, *bytes(187)]) * 2, "video"),
        ((bytes(4) + bytes([0x47, *bytes(187)])) * 2, "video"),
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML>", "page"),
        (b"#EXTM3U", "playlist"),
        (b'<?xml version="1.0"?><MPD>', "playlist"),
        (b"ffconcat version 1.0", "playlist"),
        (b"\xff\xd8\xff\xe0", "other"),
        (b"", "other"),
    ],
)
def test_first_bytes_say_what_a_file_is(head: bytes, kind: str) -> None:
    """Names and types are what strangers say."""
    assert kind_of(head) == kind


@pytest.mark.parametrize(
    "wrong", [{"way": "curl"}, {"max_bytes": 0}, {"workers": 0}, {"deadline": 0.0}, {"stall": -1.0}, {"refusals": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """With the name of the setting."""
    with pytest.raises(ConfigError, match="downloader" if "way" in wrong else next(iter(wrong))):
        DownloadSettings(**wrong)
