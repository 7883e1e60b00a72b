"""URLs of object stores: a scheme, a bucket, and a key or the beginning of keys."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..errors import ConfigError
from ..messages import redact

SCHEMES: Final = ("s3", "gs", "az", "file")
"""Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage, a folder of this machine."""


class StoreURL(NamedTuple):
    """A place in a store.

    Attributes:
        scheme: one of `SCHEMES`.
        bucket: of Azure the container; empty of ``file``.
        key: as it is, nothing in it is decoded or left out; of ``file`` an absolute path. May be empty.
    """

    scheme: str
    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> StoreURL:
        """Of ``s3://bucket/key``, ``gs://bucket/key``, ``az://container/key`` or ``file:///folder``.

        Raises:
            ConfigError: it is none, names no bucket, or has credentials in it.
        """
        scheme, found, rest = text.partition("://")
        if not found or scheme.lower() not in SCHEMES:
            raise ConfigError(f"{redact(text)!r}: no URL of a store; there are s3://, gs://, az:// and file:///")
        scheme = scheme.lower()
        bucket, slash, key = rest.partition("/")
        if "@" in bucket:
            raise ConfigError(f"{redact(text)!r}: credentials in a URL: give them in the environment or as a profile")
        if scheme == "file":
            if bucket not in ("", "localhost") or not slash:
                raise ConfigError(f"{text!r}: a file's URL has three slashes: file:///folder")
            return cls(scheme, "", "/" + key)
        if not bucket:
            raise ConfigError(f"{text!r}: names no bucket: {scheme}://bucket/prefix")
        return cls(scheme, bucket, key)

    @property
    def root(self) -> str:
        """The store as a whole: ``s3://bucket``."""
        return f"{self.scheme}://{self.bucket}"

    def at(self, key: str) -> StoreURL:
        """Another place in the same store."""
        return self._replace(key=key)

    def __str__(self) -> str:
        if self.scheme == "file":
            return f"file://{self.key}"
        return f"{self.root}/{self.key}" if self.key else self.root


def is_store_url(text: str) -> bool:
    """Whether it begins as one, of a store that is not this machine's files."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.lower() in SCHEMES and scheme.lower() != "file"
