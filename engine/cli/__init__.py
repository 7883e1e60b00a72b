"""The command line: ``penstock`` and its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy_exports

if TYPE_CHECKING:
    from .commands import main
else:
    __getattr__, __dir__ = lazy_exports(__name__, {"commands": ("main",)})

__all__ = ["main"]
