"""Making a client of a store: endpoint, credentials, time-outs and retries."""

from __future__ import annotations

import ipaddress
import logging
import os
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..messages import redact
from .credentials import azure_account, credentials_for
from .failures import kind_of, short
from .libraries import obstore_stores
from .options import StoreOptions
from .urls import StoreURL

_LOG: Final = logging.getLogger("penstock.object_stores")

_FIRST_WAIT: Final = timedelta(milliseconds=100)
_LONGEST_WAIT: Final = timedelta(seconds=2)

_warned: set[str] = set()


def open_client(url: StoreURL, options: StoreOptions) -> Any:
    """A client of obstore for the whole bucket; of ``file`` for the whole folder. Makes no request.

    Endpoint and region are those of the environment (``AWS_ENDPOINT_URL``, ``AWS_REGION``), never of a data set.

    Raises:
        ConfigError: there are no credentials, a library is missing, or a setting is wrong.
    """
    stores = obstore_stores(str(url.at("")))
    if url.scheme == "file":
        return stores.LocalStore(url.key, automatic_cleanup=False, mkdir=True)
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=options.timeout),
        "connect_timeout": timedelta(seconds=options.connect_timeout),
    }
    if url.scheme == "s3" and _is_plain_http(s3_endpoint()):
        client["allow_http"] = True
    waits = {"init_backoff": _FIRST_WAIT, "max_backoff": _LONGEST_WAIT, "base": 2}
    retry = {
        "max_retries": int(options.retries),
        "retry_timeout": timedelta(seconds=options.retry_for),
        "backoff": waits,
    }
    kind = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[url.scheme]
    given = credentials_for(url, options)
    if url.scheme == "az":  # by its own reading of the environment the client works, but its repr ends in a panic
        given["account_name"] = azure_account(url)
    try:
        return kind(url.bucket, client_options=client, retry_config=retry, **given)
    except Exception as error:
        if kind_of(error) is None:
            raise
        raise ConfigError(f"'{url.root}' cannot be opened: {short(error)}") from None


def s3_endpoint() -> str | None:
    """The operator's own S3 endpoint; None for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def s3_region() -> str | None:
    """The region that the environment names."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def _is_plain_http(endpoint: str | None) -> bool:
    """Whether an endpoint is without TLS. Keys are not sent in clear, pictures are: outside of one's own network it is
    said once."""
    if endpoint is None or not endpoint.lower().startswith("http://"):
        return False
    if "@" in urlsplit(endpoint).netloc:
        raise ConfigError(f"AWS_ENDPOINT_URL: {redact(endpoint)!r}: credentials in a URL")
    host = urlsplit(endpoint).hostname or ""
    try:
        is_private = ipaddress.ip_address(host).is_private
    except ValueError:
        is_private = host == "localhost"
    if not is_private and endpoint not in _warned:
        _warned.add(endpoint)
        _LOG.warning("%s: without TLS, what is read and written can be seen on the way", endpoint)
    return True
