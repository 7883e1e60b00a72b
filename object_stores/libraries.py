"""The client libraries: imported when a store is first opened; what to install where they are missing."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from ..errors import ConfigError


def obstore_stores(why: str) -> Any:
    """The module with obstore's stores.

    Args:
        why: what needs it, for the message.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import obstore.store
    except ImportError as error:
        raise ConfigError(f"{why} needs obstore: pip install 'penstock[objects]', or 'penstock[s3]' for S3") from error
    return obstore.store


def botocore_session(why: str) -> Any:
    """A session of botocore that never asks the metadata service of a machine in the cloud.

    Args:
        why: what needs it, for the message.

    Raises:
        ConfigError: boto3 is not installed.
    """
    try:
        import_module("boto3")  # comes with botocore; asked for by its name, which the extra has
        import botocore.session
    except ImportError as error:
        raise ConfigError(f"{why} needs boto3: pip install 'penstock[s3]'") from error
    session = botocore.session.Session()
    session.get_component("credential_provider").remove("iam-role")
    session.register_component("data_loader", _models(session.get_config_variable("data_path")))
    return session


@cache
def _models(data_path: str | None) -> Any:
    """What botocore knows of services, read once a process: each session would do so for 70 ms of CPU time."""
    from botocore.loaders import create_loader

    return create_loader(data_path)
