"""A data set on S3: parts are uploads that stay open until they are shown; nothing is copied or renamed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from ...errors import ObjectChangedError, ObjectNotFoundError, SinkError
from ...object_stores.s3 import boto3_errors
from .objects import ObjectPlace, errors
from .place import Hold, PartFile, Sealed

_BLOCK: Final = 8 * 2**20
"""Bytes of a part of an upload: at least 5 MiB, and 10,000 at most."""

_JOB: Final = "penstock-job"
_PART: Final = re.compile(r"part-([0-9a-f]{32})-\d+\.parquet")


class S3Place(ObjectPlace):
    """Objects below a prefix of an S3 bucket.

    Args:
        url: ``s3://bucket/prefix``.
        options: how the store is spoken to.
    """

    def hold(self, job: str) -> Hold:
        with errors():
            self.store.boto3()  # missed now, where it is missing, and not when all rows are there
        return super().hold(job)

    def begin(self, job: str, name: str) -> PartFile:
        with self.client(name) as (client, at):
            upload: str = client.create_multipart_upload(**at, Metadata={_JOB: job})["UploadId"]
        return _Upload(self, name, upload)

    def complete(self, job: str, part: Sealed) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(part.handle["etags"], 1)]
        with errors():
            try:
                with self.client(part.name) as (client, at):
                    client.complete_multipart_upload(
                        **at, UploadId=part.handle["upload"], MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                    )
            except (ObjectNotFoundError, ObjectChangedError) as error:  # shown before? then it is there, and ours
                if not self._is_ours(job, part):
                    raise SinkError(f"{self.uri}: the upload of {part.name} is not there any more") from error

    def _is_ours(self, job: str, part: Sealed) -> bool:
        with suppress(ObjectNotFoundError), self.client(part.name) as (client, at):
            found = client.head_object(**at)
            return bool(found["ContentLength"] == part.nbytes and found["Metadata"].get(_JOB) == job)
        return False

    def delete_if(self, name: str, was: bytes) -> bool:
        with errors():
            try:
                etag = self.store.head(self.key(name)).etag
                if self.read(name) != was:
                    return False
                with self.client(name) as (client, at):
                    client.delete_object(**at, IfMatch=f'"{etag}"')
            except (ObjectNotFoundError, ObjectChangedError):
                return False
            return True

    def forget(self, job: str, parts: Sequence[Sealed]) -> None:
        del job
        for part in parts:
            self.abort(part.name, part.handle["upload"])

    def abort(self, name: str, upload: str) -> None:
        """End an upload; what was sent for it is gone. One that has ended is no error."""
        with errors(), suppress(ObjectNotFoundError), self.client(name) as (client, at):
            client.abort_multipart_upload(**at, UploadId=upload)

    def unfinished(self) -> Mapping[str, int]:
        return Counter(job for job, _, _ in self._uploads())

    def sweep(self, job: str) -> None:
        for owner, name, upload in list(self._uploads()):
            if owner == job:
                self.abort(name, upload)
        super().sweep(job)

    def _uploads(self) -> Iterator[tuple[str, str, str]]:
        """Open uploads of parts: the job, the name, the id."""
        prefix = self.key("")
        with errors(), self.client("") as (client, _):
            pages = client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._url.bucket, Prefix=prefix):
                for upload in page.get("Uploads", ()):
                    name = upload["Key"][len(prefix) :]
                    if match := _PART.fullmatch(name):
                        yield match[1], name, upload["UploadId"]

    @contextmanager
    def client(self, name: str) -> Generator[tuple[Any, dict[str, str]]]:
        """boto3's client, and what a name is called by it; its errors are those of an object store."""
        key = self.key(name)
        with boto3_errors(self.store.where(key)):
            yield self.store.boto3(), {"Bucket": self._url.bucket, "Key": key}


class _Upload(PartFile):
    """An open upload. Nobody sees it, and it outlives this process."""

    def __init__(self, place: S3Place, name: str, upload: str) -> None:
        super().__init__()
        self._place, self._name, self._upload = place, name, upload
        self._buffer, self._etags = bytearray(), list[str]()

    def _append(self, data: memoryview) -> None:
        self._buffer += data
        while len(self._buffer) >= _BLOCK:
            self._send(bytes(self._buffer[:_BLOCK]))
            del self._buffer[:_BLOCK]

    def _send(self, block: bytes) -> None:
        number = len(self._etags) + 1
        with errors(), self._place.client(self._name) as (client, at):
            answer = client.upload_part(**at, UploadId=self._upload, PartNumber=number, Body=block)
        self._etags.append(answer["ETag"])

    def seal(self, rows: int) -> Sealed:
        if self._buffer or not self._etags:
            self._send(bytes(self._buffer))
            self._buffer.clear()
        handle = {"upload": self._upload, "etags": self._etags}
        return Sealed(self._name, rows, self._nbytes, self._sha256.hexdigest(), handle)

    def abandon(self) -> None:
        self._place.abort(self._name, self._upload)
