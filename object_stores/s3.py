"""S3 by boto3: uploads that stay open, and keys that obstore cannot name (``a//b``, ``..``, a line's end)."""

from __future__ import annotations

import html
import http.client
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from ..errors import (
    ObjectStoreError,
    ObjectStoreUnavailableError,
    TooLargeError,
)
from .failures import kind_of_status, short
from .libraries import botocore_session
from .listed import ObjectInfo, bare, ns_of
from .opening import s3_endpoint, s3_region
from .options import StoreOptions
from .urls import StoreURL

_VALID: Final = 900
"""Seconds that a presigned URL may be used."""

_CONTENTS: Final = re.compile(r"<Contents>(.*?)</Contents>", re.DOTALL)
_TOKEN: Final = re.compile(r"<NextContinuationToken>(.*?)</NextContinuationToken>", re.DOTALL)
_CODE: Final = re.compile(r"<Code>(.*?)</Code>")

_PIECE: Final = 2**16


def boto3_client(url: StoreURL, options: StoreOptions) -> Any:
    """A client of boto3 that speaks to the same place, with the same credentials and patience. Threads may share it.

    Raises:
        ConfigError: boto3 is not installed.
    """
    session = botocore_session(url.root)
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        connect_timeout=options.connect_timeout,
        read_timeout=options.timeout,
        retries={"max_attempts": int(options.retries) + 1, "mode": "standard"},
        max_pool_connections=64,
        signature_version=UNSIGNED if options.anonymous else "s3v4",
        s3={"addressing_style": "path"} if s3_endpoint() else None,
    )
    if options.instance_role:
        session = None  # botocore's own way, which asks the metadata service
    made = boto3.Session(botocore_session=session)
    return made.client("s3", endpoint_url=s3_endpoint(), region_name=s3_region() or made.region_name, config=config)


@contextmanager
def boto3_errors(where: str) -> Generator[None]:
    """Turn errors of boto3 into ours.

    Args:
        where: the URL it is about, for the message.

    Raises:
        ObjectStoreError: one of its kinds.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise kind_of_status(status)(f"{where!r}: {short(error)}") from None
    except BotoCoreError as error:
        raise ObjectStoreUnavailableError(f"{where!r}: {short(error)}") from None


class PlainS3:
    """Listing and reading by presigned URLs, with keys as they are. One connection a request: for the few odd ones.

    Args:
        url: of the bucket.
        options: of the store.
        client: of boto3, which signs.
    """

    def __init__(self, url: StoreURL, options: StoreOptions, client: Any) -> None:
        self._url, self._options, self._client = url, options, client

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose keys begin so, as the store lists them.

        Raises:
            ObjectStoreError: the store refuses.
        """
        token = ""
        while True:
            params = {"Bucket": self._url.bucket, "Prefix": prefix, "EncodingType": "url"}
            if token:
                params["ContinuationToken"] = token
            body, _ = self._request("list_objects_v2", params, {}, 2**26, str(self._url.at(prefix)))
            page = body.decode()
            for contents in _CONTENTS.findall(page):
                yield _object(contents)
            found = _TOKEN.search(page)
            if found is None:
                return
            token = html.unescape(found[1])

    def get(self, key: str, etag: str, max_bytes: int, span: tuple[int, int] | None) -> tuple[bytes, int]:
        """One object, or a span of it, the end excluded; and the time of its last change, 0 where that is not said.

        Raises:
            ObjectStoreError: it cannot be had, or has another etag.
            TooLargeError: it has more bytes.
        """
        headers = {"If-Match": etag} if etag else {}
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        params = {"Bucket": self._url.bucket, "Key": key}
        body, modified = self._request("get_object", params, headers, max_bytes, str(self._url.at(key)))
        return body, _ns_of(modified, parsedate_to_datetime)

    def _request(
        self, method: str, params: dict[str, str], headers: dict[str, str], cap: int, where: str
    ) -> tuple[bytes, str]:
        """The body of an answer, and its ``Last-Modified``."""
        end = time.monotonic() + self._options.retry_for
        attempt = 0
        while True:
            try:
                return self._once(method, params, headers, cap, where)
            except ObjectStoreUnavailableError:
                attempt += 1
                if attempt > self._options.retries or time.monotonic() > end:
                    raise
                time.sleep(min(0.1 * 2**attempt, 2.0))

    def _once(
        self, method: str, params: dict[str, str], headers: dict[str, str], cap: int, where: str
    ) -> tuple[bytes, str]:
        from botocore.exceptions import BotoCoreError

        try:
            signed = urlsplit(self._client.generate_presigned_url(method, Params=params, ExpiresIn=_VALID))
        except BotoCoreError as error:  # it has no credentials any more, for example
            raise ObjectStoreError(f"{where!r}: no request can be signed: {error}") from None
        kind = http.client.HTTPSConnection if signed.scheme == "https" else http.client.HTTPConnection
        connection = kind(signed.hostname or "", signed.port, timeout=self._options.timeout)
        end = time.monotonic() + self._options.timeout
        try:
            connection.request("GET", f"{signed.path}?{signed.query}", headers=headers)
            response = connection.getresponse()
            if response.status != (206 if "Range" in headers else 200):
                raise _refusal(where, response.status, response.read(_PIECE))
            if int(response.getheader("Content-Length") or 0) > cap:
                raise TooLargeError(f"{where!r} has {response.getheader('Content-Length')} bytes, over {cap}")
            return _body(response, cap, end, where), response.getheader("Last-Modified") or ""
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, ObjectStoreError):
                raise
            said = f"{type(error).__name__}: {error}"
            raise ObjectStoreUnavailableError(f"{where!r}: no answer that is of use: {said}") from None
        finally:
            connection.close()


def _body(response: http.client.HTTPResponse, cap: int, end: float, where: str) -> bytes:
    body = bytearray()
    while piece := response.read1(_PIECE):
        body += piece
        if len(body) > cap:
            raise TooLargeError(f"{where!r} has more than {cap} bytes")
        if time.monotonic() > end:
            raise TimeoutError("it took longer than it may")
    if response.length:
        raise ConnectionResetError("the connection ended within the body")
    return bytes(body)


def _refusal(where: str, status: int, body: bytes) -> ObjectStoreError:
    code = _CODE.search(body.decode(errors="replace"))
    return kind_of_status(status)(f"{where!r}: HTTP {status}" + (f" {code[1]}" if code else ""))


def _object(contents: str) -> ObjectInfo:
    tags = dict(re.findall(r"<(Key|LastModified|ETag|Size)>(.*?)</\1>", contents, re.DOTALL))
    key = unquote(html.unescape(tags.get("Key", "")).replace("+", " "))
    etag = bare(html.unescape(tags.get("ETag", "")))
    return ObjectInfo(
        key, int(tags.get("Size", -1)), _ns_of(tags.get("LastModified", ""), datetime.fromisoformat), etag
    )


def _ns_of(text: str, parse: Callable[[str], datetime]) -> int:
    try:
        return ns_of(parse(text))
    except ValueError:
        return 0
