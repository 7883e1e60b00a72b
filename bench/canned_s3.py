"""A server that looks like S3 and does little else: canned objects and listings, as fast as a Python can send them.

``python -m penstock.bench.canned_s3 FILES``: FILES is a text with the path of a picture a line; they are the objects
``pictures/000000.jpg`` and so on, and answered after the seconds that the name of the bucket tells: ``wait-0.05``. The
bucket ``keys-N`` lists N keys. Prints its port, and ends with its input.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

_PAGE: Final = 1000
_REQUEST: Final = re.compile(rb"(\w+) /([\w.-]+)/?([^ ?]*)\??(\S*) HTTP/1.1\r\n")
_DATE: Final = "Sun, 01 Nov 2026 00:00:00 GMT"
_ISO: Final = "2026-11-01T00:00:00.000Z"

Answers = dict[str, tuple[bytes, bytes]]
"""Key -> headers and body."""


def answers_of(paths: list[str]) -> Answers:
    """What each picture is answered with."""
    found: Answers = {}
    for number, path in enumerate(paths):
        data = Path(path).read_bytes()
        etag = hashlib.md5(data).hexdigest()
        head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nETag: "{etag}"\r\nLast-Modified: {_DATE}\r\n\r\n'
        found[f"pictures/{number:06}.jpg"] = head.encode(), data
    return found


class Connection(asyncio.Protocol):
    """One connection; requests have no bodies, and the next one comes behind the answer."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._transport: asyncio.Transport | None = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._got += data
        while b"\r\n\r\n" in self._got:
            head, _, self._got = self._got.partition(b"\r\n\r\n")
            found = _REQUEST.match(head + b"\r\n")
            assert found is not None, head
            method, bucket, key, query = (part.decode() for part in found.groups())
            answer = self._answer(method, bucket, key, query)
            wait = float(bucket.removeprefix("wait-")) if bucket.startswith("wait-") and key else 0.0
            if wait:
                asyncio.get_running_loop().call_later(wait, self._send, answer)
            else:
                self._send(answer)

    def _send(self, answer: tuple[bytes, bytes]) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.writelines(answer)

    def _answer(self, method: str, bucket: str, key: str, query: str) -> tuple[bytes, bytes]:
        if not key:
            return listed(self._answers, bucket, query)
        found = self._answers.get(key)
        if found is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b""
        return found if method == "GET" else (found[0], b"")


def listed(answers: Answers, bucket: str, query: str) -> tuple[bytes, bytes]:
    """A page of a listing; its token is the number of its first key."""
    token = re.search(r"continuation-token=(\d+)", query)
    first = int(token[1]) if token else 0
    if bucket.startswith("keys-"):
        count = int(bucket.removeprefix("keys-"))
        contents = _canned().replace(b"00000/", b"%05d/" % (first // _PAGE))
    else:
        count = len(answers)
        keys = [*answers][first : first + _PAGE]
        etags = [answers[key][0].partition(b'ETag: "')[2][:32].decode() for key in keys]
        contents = _contents((key, etag, len(answers[key][1])) for key, etag in zip(keys, etags, strict=True))
    more = first + _PAGE < count
    token_of = f"<NextContinuationToken>{first + _PAGE}</NextContinuationToken>" if more else ""
    begin = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token_of}<MaxKeys>{_PAGE}</MaxKeys>"
    body = begin.encode() + contents + b"</ListBucketResult>"
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body


@cache
def _canned() -> bytes:
    """The first page of a bucket of keys, a volume; the others differ in its number only."""
    return _contents((f"scans/vol_00000/page_{n:04}.jpg", f"{n:032x}", 200_000 + n) for n in range(_PAGE))


def _contents(objects: Iterable[tuple[str, str, int]]) -> bytes:
    return "".join(
        f"<Contents><Key>{key}</Key><LastModified>{_ISO}</LastModified><ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for key, etag, size in objects
    ).encode()


async def serve(paths: list[str]) -> None:
    """Until the input ends."""
    answers = answers_of(paths)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answers), "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]).read_text().split("\n")))
