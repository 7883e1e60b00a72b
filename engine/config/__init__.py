"""The settings of a job: one model, whether they come from the command line, a YAML file or Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .model import ServiceConfig
    from .settings import AsyncPipelineConfig
else:
    __getattr__, __dir__ = lazy_exports(__name__, {"model": ("ServiceConfig",), "settings": ("AsyncPipelineConfig",)})

__all__ = ["AsyncPipelineConfig", "ServiceConfig"]
