"""Places as users name them: folders of this machine, and URLs of stores."""

from __future__ import annotations

from pathlib import Path

from ....object_stores import StoreOptions, StoreURL, is_store_url
from ...config.volumes import PipelineConfig


def local_folder(place: str) -> Path | None:
    """The folder of this machine that a path or a ``file://`` URL names; None for a place in a store."""
    if is_store_url(place):
        return None
    return Path(StoreURL.parse(place).key if place.startswith("file://") else place).expanduser().absolute()


def below(place: str, name: str) -> str:
    """What is called so in a place: a URL, or an absolute path."""
    folder = local_folder(place)
    return f"{place.rstrip('/')}/{name}" if folder is None else str(folder / name)


def store_options(cfg: PipelineConfig) -> StoreOptions:
    """How object stores are spoken to."""
    return StoreOptions(cfg.anonymous, cfg.instance_role)
