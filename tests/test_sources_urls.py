"""http(s) URLs as pictures: what is refused before anything is connected to, and jobs over lists of them."""

from __future__ import annotations

import errno
import gzip
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.engine.cli import main
from penstock.engine.journal import read_status
from penstock.engine.sources import Broken, Item, SourceOptions, UrlOptions, open_source
from penstock.engine.sources.safe_http import SafeHttp, is_public
from penstock.errors import ReadError, SourceError, TooLargeError
from penstock.references import Version
from penstock.tests.waiting import patient

INWARD = [
    *("http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/"),
    *("http://0/", "http://localhost/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/"),
    *("http://169.254.169.254/", "http://2852039166/", "http://0xA9FEA9FE/", "http://0251.0376.0251.0376/"),
    *("http://169.254.43518/", "http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe]/"),
    *("http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::a9fe:a9fe]/", "http://[2002:a9fe:a9fe::]/"),
    *("http://[::169.254.169.254]/", "http://[fe80::1]/", "http://[fd00::1]/", "http://10.0.0.1/"),
    *("http://172.16.0.1/", "http://192.168.1.1/", "http://100.64.0.1/", "http://224.0.0.1/", "https://127.0.0.1/"),
]
"""Hosts that are not of the internet, in all their spellings."""

OTHER = [
    "file:///etc/passwd",
    "ftp://example.com/a.jpg",
    "data:image/png;base64,AAAA",
    "gopher://x/",
    "http:///a",
    "http://",
]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that were connected to, in place of connecting."""
    seen: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        seen.append(address)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return seen


@pytest.mark.parametrize("url", INWARD)
def test_a_host_inside_is_refused_without_a_connection(url: str, connections: list[Any]) -> None:
    """By its address, whatever its name and its spelling."""
    with pytest.raises(ReadError, match=r"not an address of the internet|No address|not known"):
        SafeHttp().get(url, 99)
    assert connections == []


@pytest.mark.parametrize("url", OTHER)
def test_other_urls_are_refused(url: str, connections: list[Any]) -> None:
    """Files of this machine above all."""
    with pytest.raises(ReadError, match="only http and https"):
        SafeHttp().get(url, 99)
    assert connections == []


def test_credentials_in_a_url_are_refused_and_not_told(connections: list[Any]) -> None:
    """They would be in the books, too."""
    with pytest.raises(ReadError, match="credentials in a URL") as raised:
        SafeHttp().get("http://user:MARKER@example.com/", 99)
    assert "MARKER" not in str(raised.value)
    assert connections == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *(("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True), ("64:ff9b::5db8:d822", True)),
        *(("0.0.0.0", False), ("fe80::1%eth0", False), ("fec0::1", False), ("ff02::1", False), ("198.18.0.1", False)),
    ],
)
def test_what_is_an_address_of_the_internet(address: str, public: bool) -> None:
    """An IPv6 address that leads to one of IPv4 is what that is."""
    assert is_public(address) is public


def test_one_private_address_refuses_the_name_and_it_is_resolved_once(
    monkeypatch: pytest.MonkeyPatch, connections: list[Any]
) -> None:
    """Which of several is taken is not ours to say; and the one that was looked at is connected to."""
    asked: list[str] = []
    answers = {"both": ["93.184.216.34", "10.0.0.1"], "public": ["93.184.216.34"]}

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ReadError, match=r"'both' is 10.0.0.1"):
        SafeHttp().get("http://both/", 99)
    with pytest.raises(ReadError, match="refused"):
        SafeHttp().get("http://public/", 99)
    assert (asked, connections) == (["both", "public"], [("93.184.216.34", 80)])


class Pages:
    """A web server on the loopback: path -> what answers."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.seen: Counter[str] = Counter()
        self.connections = 0
        self.host = ""

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"


@pytest.fixture
def pages() -> Iterator[Pages]:
    found = Pages()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            found.connections += 1
            super().setup()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

        def do_GET(self) -> None:
            found.seen[self.path] += 1
            page = found.pages.get(self.path)
            try:
                if callable(page):
                    page(self)
                else:
                    self.send_response(404 if page is None else 200)
                    self.send_header("Content-Length", str(len(page or b"")))
                    self.end_headers()
                    self.wfile.write(page or b"")
            except ConnectionError:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    found.host = f"127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()


def redirect(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return page


def body(*pieces: bytes, pause: float = 0.0, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """A body in pieces; the connection ends behind it."""

    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Connection": "close", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause)

    return page


def read(pages: Pages, path: str, cap: int = 1000, deadline: float = 10.0) -> bytes:
    return SafeHttp([pages.host], deadline).get(pages.url(path), cap)


def test_pages_are_read_by_connections_that_are_kept(pages: Pages) -> None:
    """One a thread; with signs that no URL may hold."""
    pages.pages["/a%20b.jpg?c=%C3%A9"] = b"picture"
    http = SafeHttp([pages.host])
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda _: http.get(pages.url("/a b.jpg?c=é"), 1000), range(100)))
    assert found == {b"picture"}
    assert pages.connections <= 4


def test_a_connection_that_the_server_has_ended_is_made_anew(pages: Pages) -> None:
    """It may end any that nobody uses."""

    def once(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1")
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.close_connection = True

    pages.pages["/"] = once
    http = SafeHttp([pages.host])
    assert [http.get(pages.url("/"), 9) for _ in range(20)] == [b"x"] * 20


def test_an_allowed_host_is_allowed_by_name_and_port(pages: Pages) -> None:
    """Others on it are not, nor by a redirect."""
    pages.pages |= {
        "/": b"x",
        "/away": redirect("/"),
        "/out": redirect("http://127.0.0.1:1/"),
        "/f": redirect("file:///etc/passwd"),
    }
    assert read(pages, "/away") == b"x"
    for path in ("/out", "/f"):
        with pytest.raises(ReadError, match=r"not an address of the internet|only http and https"):
            read(pages, path)
    with pytest.raises(ReadError, match=r"--allow-host 127.0.0.1"):
        SafeHttp(["127.0.0.1:1"]).get(pages.url("/"), 9)
    assert SafeHttp(["127.0.0.1"]).get(pages.url("/"), 9) == b"x"


@pytest.mark.parametrize("to", ["http://[x", "http://a..b/", f"https://{'a' * 70}.com/"])
def test_a_redirect_to_what_is_no_url_is_an_error_of_its_item(to: str, pages: Pages) -> None:
    """As are names that no host can have."""
    pages.pages["/"] = redirect(to)
    with pytest.raises(ReadError, match="leads to no URL"):
        read(pages, "/")


def test_a_body_is_neither_endless_nor_compressed_nor_cut(pages: Pages) -> None:
    """Each is refused when it shows."""
    pages.pages |= {
        "/announced": body(b"x", Content_Length=str(10**10)),
        "/endless": body(*[b"x" * 500] * 10),
        "/bomb": body(gzip.compress(bytes(10**6)), Content_Encoding="gzip"),
        "/cut": body(b"xx", Content_Length="500"),
        "/circle": redirect("/circle"),
    }
    for path in ("/announced", "/endless"):
        with pytest.raises(TooLargeError):
            read(pages, path)
    for path, said in {"/bomb": "compressed", "/cut": "ended within the body", "/circle": "too many redirects"}.items():
        with pytest.raises(ReadError, match=said):
            read(pages, path)


@pytest.mark.parametrize("headers", [{}, {"Content_Length": "400", "Connection": "keep-alive"}])
def test_a_drip_meets_the_deadline(headers: dict[str, str], pages: Pages) -> None:
    """Though each byte comes in time."""
    pages.pages["/"] = body(*[b"x"] * 400, pause=0.05, **headers)
    begin = time.monotonic()
    with pytest.raises(ReadError, match="longer than it may") as raised:
        read(pages, "/", deadline=0.5)
    assert raised.value.errno == errno.ETIMEDOUT
    assert time.monotonic() - begin < patient(3)


def test_headers_that_drip_meet_the_deadline(pages: Pages) -> None:
    """There may be megabytes of them."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            for _ in range(400):
                handler.connection.send(b"x")
                time.sleep(0.05)

    pages.pages["/"] = drip
    begin = time.monotonic()
    with pytest.raises(ReadError, match="longer than it may"):
        read(pages, "/", deadline=0.5)
    assert time.monotonic() - begin < patient(3)


def test_errors_say_whether_they_may_pass(pages: Pages) -> None:
    """By errno, as the policies of a job read it."""

    def status(number: int) -> Callable[[BaseHTTPRequestHandler], None]:
        return lambda handler: handler.send_error(number)

    pages.pages |= {"/503": status(503), "/403": status(403), "/410": status(410), "/418": status(418)}
    for path, number in {
        "/503": errno.ETIMEDOUT,
        "/403": errno.EACCES,
        "/410": errno.ENOENT,
        "/418": None,
        "/404": errno.ENOENT,
    }.items():
        with pytest.raises(ReadError, match=f"HTTP {path[1:]}") as raised:
            read(pages, path)
        assert raised.value.errno == number


# -- as a source --


def test_urls_stand_among_files_and_in_lists(photos: list[Path], tmp_path: Path) -> None:
    """Each is a candidate, nothing is asked; what cannot be one is broken, and its secret is not told."""
    lines = [
        "https://example.com/a.jpg",
        str(photos[0]),
        "http://u:MARKER@h/b.jpg",
        "s3://bucket/c.jpg",
        "ftp://h/d.jpg",
        "s3://bucket",
    ]
    (tmp_path / "urls.txt").write_text("\n".join(lines))
    source = open_source([f"@{tmp_path}/urls.txt", "http://example.com/e"])
    entries = list(source)
    assert [type(entry) for entry in entries] == [Item, Item, Broken, Item, Broken, Broken, Item]
    items = [entry for entry in entries if isinstance(entry, Item)]
    assert [item.reference.ref if item.reference else item.path for item in items] == [
        lines[0],
        str(photos[0]),
        lines[3],
        "http://example.com/e",
    ]
    assert "MARKER" not in repr(entries)
    again = open_source([*source.portable_specs()])
    assert [entry.key for entry in again] == [entry.key for entry in entries]
    assert again.item(3, lines[0], Version()).reference == items[0].reference


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("http://u:MARKER@example.com/a.jpg", r"'http://\*\*\*@example.com/a.jpg': credentials in a URL"),
        ("http://", "names no picture"),
    ],
)
def test_a_url_that_can_be_none_of_a_picture_is_refused_before_the_job(spec: str, said: str) -> None:
    """Where it is the only source."""
    with pytest.raises(SourceError, match=said):
        open_source([spec])


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [False, True])
def test_a_list_of_urls_is_a_job_with_books(
    sandbox: bool, photos: list[Path], pages: Pages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is refused or away is a dead letter, and can be tried again."""
    for photo in photos[:6]:
        pages.pages[f"/{photo.name}"] = photo.read_bytes()
    urls = [pages.url(path) for path in pages.pages]
    (tmp_path / "urls.txt").write_text("\n".join([*urls, pages.url("/away"), "http://169.254.169.254/latest"]))
    job = tmp_path / "job"
    report = penstock.embed_images(
        f"@{tmp_path}/urls.txt",
        to=str(tmp_path / "p.db"),
        job=job,
        workers=1,
        allow_hosts=[pages.host],
        progress="none",
        sandbox=sandbox,
    )
    assert (report.accounting.written, report.accounting.dead) == (6, 2)
    letters = [json.loads(line) for line in (job / "dead-letters.jsonl").read_text().splitlines()]
    assert {letter["key"]: letter["error"] for letter in letters} == {
        pages.url("/away"): "DownloadError",
        "http://169.254.169.254/latest": "DownloadError",
    }
    pages.pages["/away"] = photos[6].read_bytes()
    assert main(["retry", str(job), "--progress", "none"]) == 0
    counts = read_status(job).counts
    assert (counts.written, counts.dead) == (7, 1)
    capsys.readouterr()


def test_hosts_and_stores_are_settings_of_a_job(tmp_path: Path) -> None:
    """They come to whoever reads, as text without secrets."""
    config = penstock.ServiceConfig(to="null:", allow_hosts=["h:1"], anonymous=True, item_timeout=10)
    from penstock.engine.jobs.common.source_factory import make_source

    source = make_source(config, ["http://h:1/a.jpg"])
    assert source.locator is not None
    options = json.loads(source.locator.options)
    assert (options["allowed"], options["deadline"], json.loads(options["stores"])["anonymous"]) == (["h:1"], 8.0, True)
    assert isinstance(SourceOptions().urls, UrlOptions)
