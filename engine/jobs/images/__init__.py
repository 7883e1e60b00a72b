"""The image job, its faces, and the stream of preprocessed batches that is its first half."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .embed import embed_images
    from .search import search_images
else:
    __getattr__, __dir__ = lazy_exports(__name__, {"embed": ("embed_images",), "search": ("search_images",)})

__all__ = ["embed_images", "search_images"]
