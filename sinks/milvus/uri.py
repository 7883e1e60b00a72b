"""Where a Milvus URI points to: a Milvus Lite store, or a server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from ...errors import ConfigError
from ...messages import redact

_FORMS = (
    "photos.db (a Milvus Lite store: a folder), http://host:19530 or https://host (a Milvus server or Zilliz Cloud),"
    " and of a job bulk:DIR (a folder of Parquet files, for penstock import or any other reader of Parquet), null: (no"
    " store) and what installed packages bring (penstock doctor)"
)
_DEFAULT_PORT = {"http": 19530, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed Milvus URI. Its repr shows no secret."""

    address: str
    """Milvus Lite: the absolute path of the data directory. Server: scheme://host:port."""

    lite: bool

    named: str
    """As it was given, without secrets; Milvus Lite: the address."""

    database: str = ""
    token: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """For people and journals: without secrets."""
        return f"{self.address}/{self.database}" if self.database else self.address


def parse_uri(uri: str | os.PathLike[str], token: str | None = None) -> Target:
    """Parse a URI of one of the forms above; credentials in it (``user:password@``) become the token.

    Args:
        uri: a path ending in ``.db``, an existing Milvus Lite directory, or an http(s) address with an optional
            ``/database``.
        token: API key or ``user:password``. Goes before the URI's, which goes before the variable ``MILVUS_TOKEN``.

    Raises:
        ConfigError: none of these forms. The message does not repeat credentials.
    """
    uri = os.fspath(uri)
    scheme, separator, _ = uri.partition("://")
    if separator and scheme.lower() in _DEFAULT_PORT:
        return _server(uri, token)
    if not separator and (uri.rstrip("/").endswith(".db") or (Path(uri) / "collections").is_dir()):
        return _lite(uri)
    raise ConfigError(f"uri: {redact(uri)!r} is not a Milvus address; possible are {_FORMS}")


def _lite(uri: str) -> Target:
    path = Path(uri).absolute()
    if not path.parent.is_dir():
        raise ConfigError(f"uri: the folder {str(path.parent)!r} does not exist; create it first")
    if path.exists() and not path.is_dir():
        # milvus-lite 2.x kept a SQLite file under this name; 3.x a directory, and cannot read the other
        raise ConfigError(f"uri: {str(path)!r} is not a Milvus Lite 3 directory; choose another name")
    return Target(str(path), lite=True, named=str(path))


def _server(uri: str, token: str | None) -> Target:
    try:
        parts = urlsplit(uri)
        port = parts.port or _DEFAULT_PORT[parts.scheme]
    except ValueError as error:
        raise ConfigError(f"uri: {_safe(uri)!r} has no valid host and port") from error
    database = parts.path.strip("/")
    if not parts.hostname or parts.query or parts.fragment or "/" in database:
        raise ConfigError(f"uri: {_safe(uri)!r} is not a Milvus address; possible are {_FORMS}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    secret = token or _credentials(parts) or os.environ.get("MILVUS_TOKEN", "")
    return Target(f"{parts.scheme}://{host}:{port}", lite=False, named=_safe(uri), database=database, token=secret)


def _safe(uri: str) -> str:
    """An address that is not understood, without what may be a secret: what stands before an @ or behind a ?."""
    scheme, _, rest = uri.partition("://")
    rest = rest.rpartition("@")[2]
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0]}"


def _credentials(parts: SplitResult) -> str:
    if not parts.username:
        return ""
    user = unquote(parts.username)
    return user if parts.password is None else f"{user}:{unquote(parts.password)}"
