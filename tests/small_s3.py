"""A small S3 in this process: buckets in memory, conditions, listing, and faults by key.

It is what faults need that no real server makes; what S3 is, real servers say (see ``test_object_stores_servers``).
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

BUCKET = "bucket"

_QUOTES = {"&quot;": '"', "&apos;": "'"}


@dataclass
class Stored:
    """An object."""

    data: bytes
    etag: str
    modified: float = field(default_factory=time.time)


@dataclass
class Request:
    """What a fault is told, and what it answers with.

    Attributes:
        number: of this request for this key, from 1.
    """

    method: str
    key: str
    number: int
    handler: BaseHTTPRequestHandler
    stored: Stored | None

    def refuse(self, status: int, code: str, **headers: str) -> None:
        """An error as S3 says it."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.head(status, len(body), **headers)
        if self.method != "HEAD":
            self.handler.wfile.write(body)

    def head(self, status: int, length: int, etag: str | None = None, **headers: str) -> None:
        """Status and headers."""
        handler = self.handler
        handler.send_response(status)
        handler.send_header("Content-Length", str(length))
        if etag:
            handler.send_header("ETag", f'"{etag}"')
        if self.stored:
            handler.send_header("Last-Modified", formatdate(self.stored.modified, usegmt=True))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    def reset(self) -> None:
        """End the connection by RST."""
        connection: socket.socket = self.handler.connection
        self.handler.wfile.flush()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.handler.close_connection = True
        connection.close()


Fault = Callable[[Request], bool]
"""Answers a request, and says whether it did."""


class SmallS3:
    """The server; see the module. Runs from `served` on.

    Attributes:
        objects: key -> object, of the one bucket.
        faults: key -> what happens instead of an answer.
        seen: method and key of each request -> how often.
        headers: of the last request, their names in small letters.
        order: sorts keys for a listing; None for the order in which they were put.
        etags: whether there are any.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.faults: dict[str, Fault] = {}
        self.seen: Counter[tuple[str, str]] = Counter()
        self.headers: dict[str, str] = {}
        self.order: Callable[[str], object] | None = lambda key: key.encode()
        self.etags = True
        self.url = ""
        self.mutex = threading.Lock()

    def put(self, key: str, data: bytes) -> str:
        """Put an object; returns its etag."""
        etag = hashlib.md5(data).hexdigest()
        self.objects[key] = Stored(data, etag)
        return etag

    def count(self, key: str | None = None, method: str | None = None) -> int:
        """Requests so far."""
        return sum(n for (m, k), n in self.seen.items() if key in (None, k) and method in (None, m))


@contextmanager
def served(store: SmallS3) -> Generator[SmallS3]:
    """Serve it on a port of the loopback."""

    class Handler(_Handler):
        s3 = store

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: SmallS3

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):  # the client has gone, or a fault has closed the connection
            self.close_connection = True

    def _serve(self) -> None:
        path = urlsplit(self.path)
        bucket, _, key = unquote(path.path).removeprefix("/").partition("/")
        s3 = self.s3
        with s3.mutex:
            s3.seen[self.command, key] += 1
            number = s3.seen[self.command, key]
            s3.headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, key, number, self, s3.objects.get(key))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = s3.faults.get(key) or s3.faults.get("*")
        if fault is not None and fault(request):
            return
        if bucket != BUCKET:
            request.refuse(404, "NoSuchBucket")
        elif not key and self.command == "GET":
            self._list(request, {name: values[-1] for name, values in parse_qs(path.query).items()})
        else:
            getattr(self, f"_{self.command.lower()}")(request, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _get(self, request: Request, _: bytes) -> None:
        stored, s3 = request.stored, self.s3
        if stored is None:
            return request.refuse(404, "NoSuchKey")
        wanted = self.headers.get("If-Match")
        if wanted and wanted.strip('"') != stored.etag:
            return request.refuse(412, "PreconditionFailed")
        data, status, headers = stored.data, 200, {}
        if span := self.headers.get("Range"):
            first, last = span.removeprefix("bytes=").split("-")
            end = min(int(last or len(data)) + 1, len(data))
            headers["Content_Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data, status = data[int(first) : end], 206
        request.head(status, len(data), stored.etag if s3.etags else None, **headers)
        if self.command == "GET":
            self.wfile.write(data)
        return None

    _head = _get

    def _put(self, request: Request, body: bytes) -> None:
        with self.s3.mutex:
            there = self.s3.objects.get(request.key)
            if_match = self.headers.get("If-Match")
            if (self.headers.get("If-None-Match") == "*" and there) or (
                if_match and (there is None or if_match.strip('"') != there.etag)
            ):
                return request.refuse(412, "PreconditionFailed")
            etag = self.s3.put(request.key, body)
        return request.head(200, 0, etag)

    def _delete(self, request: Request, _: bytes) -> None:
        self.s3.objects.pop(request.key, None)
        request.head(204, 0)

    def _post(self, request: Request, body: bytes) -> None:
        """Delete several."""
        keys = [unescape(key, _QUOTES) for key in re.findall(r"<Key>(.*?)</Key>", body.decode(), re.DOTALL)]
        for key in keys:
            self.s3.objects.pop(key, None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        answer = f"<?xml version='1.0'?><DeleteResult>{deleted}</DeleteResult>".encode()
        request.head(200, len(answer), Content_Type="application/xml")
        self.wfile.write(answer)

    def _list(self, request: Request, query: dict[str, str]) -> None:
        s3 = self.s3
        keys = sorted(s3.objects, key=s3.order) if s3.order else [*s3.objects]  # type: ignore[arg-type]
        keys = [key for key in keys if key.startswith(query.get("prefix", ""))]
        if after := query.get("start-after"):
            keys = [key for key in keys if key.encode() > after.encode()]
        folders: list[str] = []
        if delimiter := query.get("delimiter"):
            start = len(query.get("prefix", ""))
            below = {key: key[start:].partition(delimiter) for key in keys}
            folders = sorted({key[:start] + name + delimiter for key, (name, found, _) in below.items() if found})
            keys = [key for key, (_, found, _) in below.items() if not found]
        first, size = int(query.get("continuation-token", 0)), int(query.get("max-keys", 1000))
        encoded = query.get("encoding-type") == "url"
        page, found = [], keys[first : first + size]
        for key in found:
            one = s3.objects[key]
            name = quote(key) if encoded else escape(key)
            etag = f"<ETag>&quot;{one.etag}&quot;</ETag>" if s3.etags else ""
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(one.modified))
            page.append(
                f"<Contents><Key>{name}</Key><LastModified>{when}</LastModified>{etag}<Size>{len(one.data)}</Size></Contents>"
            )
        page += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        more = first + size < len(keys)
        token = f"<NextContinuationToken>{first + size}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        counts = f"<KeyCount>{len(found)}</KeyCount><MaxKeys>{size}</MaxKeys>"
        body = f"<?xml version='1.0'?><ListBucketResult>{counts}{truncated}{''.join(page)}</ListBucketResult>".encode()
        request.head(200, len(body), Content_Type="application/xml")
        self.wfile.write(body)


def busy(times: int) -> Fault:
    """503 SlowDown so many times, then as ever."""

    def fault(request: Request) -> bool:
        if request.number <= times:
            request.refuse(503, "SlowDown")
        return request.number <= times

    return fault


def refused(status: int, code: str) -> Fault:
    """Always the same error."""

    def fault(request: Request) -> bool:
        request.refuse(status, code)
        return True

    return fault


def reset_after(nbytes: int, times: int = 1) -> Fault:
    """RST in the middle of the body, so many times."""

    def fault(request: Request) -> bool:
        if request.stored is None or request.number > times or request.method != "GET":
            return False
        request.head(200, len(request.stored.data), request.stored.etag)
        request.handler.wfile.write(request.stored.data[:nbytes])
        request.reset()
        return True

    return fault


def drip(seconds: float) -> Fault:
    """A byte, a pause, a byte..., as long as anybody listens."""

    def fault(request: Request) -> bool:
        if request.stored is None:
            return False
        request.head(200, len(request.stored.data), request.stored.etag)
        for number in range(len(request.stored.data)):
            request.handler.wfile.write(request.stored.data[number : number + 1])
            request.handler.wfile.flush()
            time.sleep(seconds)
        return True

    return fault


def claims(length: int) -> Fault:
    """A body that is announced with so many bytes, of which only a few come."""

    def fault(request: Request) -> bool:
        request.head(200, length, "e")
        request.handler.wfile.write(b"few")
        request.reset()
        return True

    return fault


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AK",
    "AWS_SECRET_ACCESS_KEY": "SK",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials",
    "AWS_CONFIG_FILE": "/nowhere/config",
}
"""What a test of S3 sets besides the endpoint: with nothing of the user's own."""
