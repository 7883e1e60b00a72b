"""Object stores: what lies in buckets, read and written. See the README beside this file."""

from __future__ import annotations

from .failures import as_read_error
from .in_flight import IN_FLIGHT, InFlight
from .listed import ObjectInfo
from .options import StoreOptions
from .store import ObjectStore, preload
from .stores import ObjectStores
from .urls import SCHEMES, StoreURL, is_store_url

__all__ = [
    "IN_FLIGHT",
    "SCHEMES",
    "InFlight",
    "ObjectInfo",
    "ObjectStore",
    "ObjectStores",
    "StoreOptions",
    "StoreURL",
    "as_read_error",
    "is_store_url",
    "preload",
]
