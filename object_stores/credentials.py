"""How a store is to know us: decided before the first request, from the environment and profiles only.

A cloud's metadata service is asked only where that was said: elsewhere nothing answers there, and each request would
wait for minutes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError
from .libraries import botocore_session
from .options import StoreOptions
from .urls import StoreURL

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTAINER: Final = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Where Kubernetes and ECS say how to get credentials; the client library knows these."""

_GOOGLE: Final = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)

_AZURE: Final = (
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    *("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN"),
    *("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"),
)

_FLAGS: Final = "; or say --anonymous for a public bucket, --instance-role on a machine of the cloud that has a role"


def credentials_for(url: StoreURL, options: StoreOptions) -> dict[str, Any]:
    """What the constructor of the store is given besides: nothing where it finds the credentials by itself.

    Raises:
        ConfigError: there are none; says what may be set.
    """
    if options.anonymous and options.instance_role:
        raise ConfigError("anonymous: and instance_role exclude one another")
    if options.anonymous and url.scheme != "file":
        return {"skip_signature": True}
    if options.instance_role:
        return {}
    return _KINDS[url.scheme](url)


def _of_s3(url: StoreURL) -> dict[str, Any]:
    has_key, has_secret = map(_is_set, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    if has_key != has_secret:
        there, missing = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")[:: 1 if has_key else -1]
        raise ConfigError(f"'{url.root}': {there} is set, and {missing} is not")
    if has_key:
        return {}
    if has_profile():
        return {"credential_provider": _profile(url)}
    if any(map(_is_set, _CONTAINER)):
        return {}
    keys = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    raise ConfigError(f"'{url.root}': there are no credentials: {keys}{_FLAGS}")


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable))


def has_profile() -> bool:
    """Whether there is a profile of AWS to use: one is named, or there are files with a default one."""
    return _is_set("AWS_PROFILE") or any(
        Path(os.environ.get(name, default)).expanduser().is_file()
        for name, default in (
            ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
            ("AWS_CONFIG_FILE", "~/.aws/config"),
        )
    )


def _profile(url: StoreURL) -> Any:
    """Credentials of a profile, renewed as they expire: single sign-on and assumed roles are boto3's business.

    Raises:
        ConfigError: boto3 is missing, or the profile has none.
    """
    name = os.environ.get("AWS_PROFILE") or "default"
    try:
        session = botocore_session(f"{url.root}: the profile {name!r}")
        from obstore.auth.boto3 import Boto3CredentialProvider

        provider = Boto3CredentialProvider(session)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  (there is no such profile, or a program that it names fails)
        raise ConfigError(f"'{url.root}': the profile {name!r} of AWS gives no credentials: {error}{_FLAGS}") from None
    if region := session.get_config_variable("region"):
        provider.config["region"] = region
    return provider


def _of_gs(url: StoreURL) -> dict[str, Any]:
    default = Path("~/.config/gcloud/application_default_credentials.json").expanduser()
    if any(map(_is_set, _GOOGLE)) or default.is_file():
        return {}
    ways = "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login"
    raise ConfigError(f"'{url.root}': there are no credentials: {ways}{_FLAGS}")


def azure_account(url: StoreURL) -> str:
    """Whose container it is.

    Raises:
        ConfigError: the environment does not say.
    """
    if name := os.environ.get("AZURE_STORAGE_ACCOUNT_NAME"):
        return name
    raise ConfigError(f"'{url.root}': set AZURE_STORAGE_ACCOUNT_NAME: a container's name does not say whose it is")


def _of_az(url: StoreURL) -> dict[str, Any]:
    azure_account(url)
    if any(map(_is_set, _AZURE)):
        return {}
    ways = "set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID, _SECRET and AZURE_TENANT_ID"
    raise ConfigError(f"'{url.root}': there are no credentials: {ways}{_FLAGS}")


_KINDS: Final[dict[str, Callable[[StoreURL], dict[str, Any]]]] = {
    "s3": _of_s3,
    "gs": _of_gs,
    "az": _of_az,
    "file": lambda _: {},
}
