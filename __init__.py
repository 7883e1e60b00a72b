"""penstock: millions of pictures into a vector store, on the machine you have.

The public face. Everything is imported when it is first used, so that ``import penstock`` costs nothing: in particular
it starts neither JAX nor a Milvus client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engine import Fail, PipelineBuilder, Report, Retry, Skip
    from .engine.config.model import ServiceConfig
    from .engine.jobs.images.embed import embed_images
    from .engine.jobs.images.pipeline import ImageEmbeddingPipeline
    from .engine.jobs.images.preprocess_stream import StreamingMultiprocessPreprocessor
    from .engine.jobs.images.vectors import embed
    from .engine.workers import WorkerPool
    from .errors import ConfigError, PenstockError, PipelineFailure
    from .preprocess import PreprocessSpec
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "engine": ("Fail", "PipelineBuilder", "Report", "Retry", "Skip"),
            "engine.config.model": ("ServiceConfig",),
            "engine.jobs.images.embed": ("embed_images",),
            "engine.jobs.images.pipeline": ("ImageEmbeddingPipeline",),
            "engine.jobs.images.preprocess_stream": ("StreamingMultiprocessPreprocessor",),
            "engine.jobs.images.vectors": ("embed",),
            "engine.workers": ("WorkerPool",),
            "errors": ("ConfigError", "PenstockError", "PipelineFailure"),
            "preprocess": ("PreprocessSpec",),
        },
    )

__all__ = [
    "ConfigError",
    "Fail",
    "ImageEmbeddingPipeline",
    "PenstockError",
    "PipelineBuilder",
    "PipelineFailure",
    "PreprocessSpec",
    "Report",
    "Retry",
    "ServiceConfig",
    "Skip",
    "StreamingMultiprocessPreprocessor",
    "WorkerPool",
    "__version__",
    "embed",
    "embed_images",
]
