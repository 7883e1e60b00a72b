"""The client libraries: imported when a store is first opened; what to install where they are missing."""

from __future__ import annotations

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
    return session
