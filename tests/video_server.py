"""A web server on the loopback that serves a video in every way a server can: right, wrong, slowly, and not at all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic

TAG = '"one"'
LATER = '"two"'

NO_SUCCESSES = (
    ("missing.mp4", 404, False, False),
    ("refused.mp4", 403, False, True),
    ("bot.mp4", 429, True, True),
    ("broken.mp4", 503, True, False),
)
"""Paths, the status of their answers, whether it may be another one another time, and whether the host refuses."""


class VideoServer:
    """Serves one video by many paths; see the methods named ``serve_...``.

    Attributes:
        video: the bytes of the video; `other`: those that it has become where a path changes it.
        segment: of a stream.
        seen: how often each path was asked for; `ranges`: from which byte, of those that asked for a part.
        after: what ``busy`` says about when to ask again; `times`: when each request came (`monotonic`).
        served: released when half of a video that stalls has been sent.
        let_go: until it is set, requests for ``hold`` wait; `held`: how many do; `most_held`: did at once.
        gone: set when all is over: what drips or stalls waits for it.
    """

    def __init__(self, video: bytes) -> None:
        self.video = video
        self.other = video[: len(video) // 2] + bytes(len(video) - len(video) // 2)
        self.segment = bytes([0x47, *bytes(187)]) * 100
        self.seen: Counter[str] = Counter()
        self.ranges: list[tuple[str, int]] = []
        self.cookies: list[str] = []
        self.gone = threading.Event()
        self.host = ""
        self.after = "7"
        self.times: list[float] = []
        self.served = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.held = 0
        self.most_held = 0
        self._lock = threading.Lock()

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}"

    def answer(self, handler: Handler) -> None:
        path = handler.path.partition("?")[0]
        name = path.strip("/").partition(".")[0].replace("-", "_")
        self.seen[path] += 1
        self.times.append(monotonic())
        self.cookies.append(handler.headers.get("Cookie", ""))
        begin = handler.begin()
        if begin:
            self.ranges.append((path, begin))
        serve: Callable[[Handler, int], None] = getattr(self, f"serve_{name}", self.serve_missing)
        serve(handler, self.seen[path])

    # -- right ------------------------------------------------------------------------------------------------------

    def serve_ok(self, handler: Handler, _: int) -> None:
        handler.whole(self.video, TAG)

    def serve_chunked(self, handler: Handler, _: int) -> None:
        """Without a length, and its end can be told all the same."""
        handler.head(200, chunked=True)
        handler.chunk(self.video)
        handler.chunk(b"")

    def serve_page(self, handler: Handler, _: int) -> None:
        """A page with a video on it, whose title would leave any folder."""
        video = '<video width="320"><source src="/ok.mp4" type="video/mp4"></video>'
        html = f"<!DOCTYPE html><html><head><title>../../etc/passwd</title></head><body>{video}</body></html>"
        handler.whole(html.encode(), None, "text/html; charset=utf-8")

    def serve_no_video_page(self, handler: Handler, _: int) -> None:
        handler.whole(b"<html><body>nothing here</body></html>", None, "text/html")

    def serve_moved(self, handler: Handler, _: int) -> None:
        handler.head(302, {"Location": "/ok.mp4", "Content-Length": "0"})

    def serve_hold(self, handler: Handler, _: int) -> None:
        """When it is let go."""
        with self._lock:
            self.held += 1
            self.most_held = max(self.most_held, self.held)
        self.let_go.wait()
        with self._lock:
            self.held -= 1
        handler.whole(self.video, TAG)

    # -- refused ----------------------------------------------------------------------------------------------------

    def serve_missing(self, handler: Handler, _: int) -> None:
        handler.head(404, {"Content-Length": "0"})

    def serve_busy(self, handler: Handler, times: int) -> None:
        """Once; then it is there."""
        if times == 1:
            handler.head(429, {"Content-Length": "0", "Retry-After": self.after})
        else:
            handler.whole(self.video, TAG)

    def serve_refused(self, handler: Handler, _: int) -> None:
        handler.head(403, {"Content-Length": "0"})

    def serve_bot(self, handler: Handler, _: int) -> None:
        handler.head(429, {"Content-Length": "0"})

    def serve_broken(self, handler: Handler, _: int) -> None:
        handler.head(503, {"Content-Length": "0"})

    def serve_to_file(self, handler: Handler, _: int) -> None:
        handler.head(302, {"Location": "file:///etc/passwd", "Content-Length": "0"})

    def serve_inward(self, handler: Handler, _: int) -> None:
        """To a cloud's metadata service."""
        handler.head(302, {"Location": "http://169.254.169.254/latest.mp4", "Content-Length": "0"})

    def serve_html(self, handler: Handler, _: int) -> None:
        handler.whole(b"<!DOCTYPE html><html>" + b"not here " * 200, TAG, "video/mp4")

    def serve_playlist(self, handler: Handler, _: int) -> None:
        handler.whole(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", TAG, "video/mp4")

    def serve_empty(self, handler: Handler, _: int) -> None:
        handler.whole(b"", TAG)

    # -- cut off ----------------------------------------------------------------------------------------------------

    def serve_truncated(self, handler: Handler, _: int) -> None:
        """Half of what comes, each time."""
        handler.part(self.video, handler.begin(), TAG, share=0.5)

    def serve_cut_once(self, handler: Handler, times: int) -> None:
        handler.part(self.video, handler.begin(), TAG, share=0.5 if times == 1 else 1.0)

    def serve_cut_after_a_look(self, handler: Handler, times: int) -> None:
        """Half the second time: whoever looks first what it is meets it when it means it."""
        handler.part(self.video, handler.begin(), TAG, share=0.5 if times == 2 else 1.0)

    def serve_cut_without_length(self, handler: Handler, _: int) -> None:
        """Half, and nothing says that there was more."""
        handler.head(200, close=True)
        handler.wfile.write(self.video[: len(self.video) // 2])

    def serve_cut_chunks(self, handler: Handler, _: int) -> None:
        handler.head(200, chunked=True)
        handler.chunk(self.video[: len(self.video) // 2])
        handler.close_connection = True

    def serve_weak_tag(self, handler: Handler, times: int) -> None:
        """A weak ETag says nothing about bytes."""
        handler.part(self.video, handler.begin(), f"W/{TAG}", share=0.5 if times == 1 else 1.0)

    def serve_no_ranges(self, handler: Handler, times: int) -> None:
        """A range is not heard."""
        handler.part(self.video, 0, TAG, share=0.5 if times == 1 else 1.0)

    def serve_changed(self, handler: Handler, times: int) -> None:
        """Another file after the first try, which is cut: If-Range has it sent whole."""
        if times == 1:
            handler.part(self.video, 0, LATER, share=0.5)
        else:
            handler.whole(self.video, TAG)

    def serve_ignores_if_range(self, handler: Handler, times: int) -> None:
        """Another file, and its rest is sent as if it were that of the first."""
        if times == 1:
            handler.part(self.other, 0, LATER, share=0.5)
        else:
            handler.part(self.video, handler.begin(), TAG)

    def serve_shorter(self, handler: Handler, times: int) -> None:
        """There is no such range any more."""
        if times == 1:
            handler.part(self.video, 0, TAG, share=0.5)
        elif handler.begin():
            handler.head(416, {"Content-Length": "0", "Content-Range": "bytes */1"})
        else:
            handler.whole(self.video, TAG)

    def serve_wrong_range(self, handler: Handler, times: int) -> None:
        """The rest from somewhere else."""
        if times == 1:
            handler.part(self.video, 0, TAG, share=0.5)
        elif handler.begin():
            handler.part(self.video, handler.begin() + 7, TAG)
        else:
            handler.whole(self.video, TAG)

    def serve_short_range(self, handler: Handler, times: int) -> None:
        """Less of the rest than was asked for, and no word on how much there is, any more."""
        begin = handler.begin()
        if times != 2:
            handler.part(self.video, begin, TAG, share=0.5 if times == 1 else 1.0)
            return
        some = self.video[begin : begin + 9]
        said = {"Content-Range": f"bytes {begin}-{begin + 8}/*", "Content-Length": "9", "ETag": TAG}
        handler.head(206, said)
        handler.wfile.write(some)

    def serve_long_range(self, handler: Handler, times: int) -> None:
        """Of a file with more bytes than a number can have digits."""
        if times == 1:
            handler.part(self.video, 0, TAG, share=0.5)
        elif begin := handler.begin():
            handler.head(206, {"Content-Range": f"bytes {begin}-{begin + 8}/{'9' * 5000}", "ETag": TAG})
        else:
            handler.whole(self.video, TAG)

    # -- slow and endless -------------------------------------------------------------------------------------------

    def serve_stall(self, handler: Handler, _: int) -> None:
        handler.head(200, {"Content-Length": str(len(self.video)), "ETag": TAG})
        handler.wfile.write(self.video[: len(self.video) // 2])
        self.served.release()
        self.gone.wait()

    def serve_stall_once(self, handler: Handler, times: int) -> None:
        """Half the first time, and then nothing; the rest when it is asked for."""
        if times == 1:
            self.serve_stall(handler, times)
        else:
            handler.part(self.video, handler.begin(), TAG)

    def serve_drip(self, handler: Handler, _: int) -> None:
        """Ten bytes, and again ten bytes."""
        handler.head(200, {"Content-Length": "1000000", "ETag": TAG})
        for at in range(0, 10**6, 10):
            handler.wfile.write(self.video[at : at + 10] or bytes(10))
            if self.gone.wait(0.05):
                return

    def serve_endless(self, handler: Handler, _: int) -> None:
        handler.head(200, chunked=True)
        handler.chunk(self.video)
        while not self.gone.is_set():
            handler.chunk(bytes(2**16))

    def serve_endless_length(self, handler: Handler, _: int) -> None:
        handler.head(200, {"Content-Length": str(10**13), "ETag": TAG})
        while not self.gone.is_set():
            handler.wfile.write(bytes(2**16))

    # -- in segments ------------------------------------------------------------------------------------------------

    def serve_hole(self, handler: Handler, _: int) -> None:
        """A playlist; its second segment is not there."""
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", "/segment.ts", "#EXTINF:1,", "/missing.ts"]
        text = "\n".join([*lines, "#EXTINF:1,", "/segment.ts", "#EXT-X-ENDLIST", ""])
        handler.whole(text.encode(), None, "application/vnd.apple.mpegurl")

    def serve_inward_list(self, handler: Handler, _: int) -> None:
        """A playlist; its second segment lies at a cloud's metadata service."""
        lines = [
            "#EXTM3U",
            "#EXT-X-TARGETDURATION:1",
            "#EXTINF:1,",
            "/segment.ts",
            "#EXTINF:1,",
            "http://169.254.169.254/",
        ]
        text = "\n".join([*lines, "#EXT-X-ENDLIST", ""])
        handler.whole(text.encode(), None, "application/vnd.apple.mpegurl")

    def serve_program(self, handler: Handler, _: int) -> None:
        """A list whose video is got by another program."""
        video = '<meta base="rtmp://127.0.0.1:1/app"/></head><body><video src="mp4:a.mp4" system-bitrate="9000"/>'
        handler.whole(f"<smil><head>{video}</body></smil>".encode(), None, "application/smil")

    def serve_stream(self, handler: Handler, _: int) -> None:
        """A playlist, all of whose segments are there; called plain text."""
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", "/segment.ts", "#EXT-X-ENDLIST", ""]
        handler.whole("\n".join(lines).encode(), None, "text/plain")

    def serve_segment(self, handler: Handler, _: int) -> None:
        handler.whole(self.segment, None, "video/mp2t")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    videos: VideoServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""

    def handle(self) -> None:
        with suppress(OSError):  # the other side has gone
            super().handle()

    def do_GET(self) -> None:
        self.videos.answer(self)

    do_HEAD = do_GET

    def begin(self) -> int:
        """The byte that the other side wants to go on from."""
        asked = self.headers.get("Range", "")
        return int(asked.removeprefix("bytes=").partition("-")[0] or 0) if asked else 0

    def head(
        self, status: int, headers: dict[str, str] | None = None, *, chunked: bool = False, close: bool = False
    ) -> None:
        self.send_response(status)
        fixed = {"Content-Type": "video/mp4"}
        if chunked:
            fixed["Transfer-Encoding"] = "chunked"
        if close:
            fixed["Connection"] = "close"
            self.close_connection = True
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def whole(self, data: bytes, tag: str | None, kind: str = "video/mp4") -> None:
        """All of it, or the rest where that is asked for with this tag."""
        begin = self.begin()
        if begin and self.headers.get("If-Range") in (None, tag):
            self.part(data, begin, tag)
            return
        self.head(200, {"Content-Length": str(len(data)), "Content-Type": kind, **({"ETag": tag} if tag else {})})
        self.wfile.write(data)

    def part(self, data: bytes, begin: int, tag: str | None, *, share: float = 1.0) -> None:
        """From a byte on; of what is promised only a share comes."""
        rest = data[begin:]
        headers = {"Content-Length": str(len(rest)), **({"ETag": tag} if tag else {})}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self.head(206 if begin else 200, headers)
        self.wfile.write(rest[: int(len(rest) * share)])
        self.close_connection = self.close_connection or share < 1


@contextmanager
def served(video: bytes) -> Generator[VideoServer]:
    """A server of a video for the time of the block."""
    videos = VideoServer(video)

    class Own(Handler):
        pass

    Own.videos = videos
    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        server.daemon_threads = True
        videos.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield videos
        finally:
            videos.gone.set()
            videos.let_go.set()
            server.shutdown()
            thread.join()
