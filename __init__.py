"""penstock: millions of pictures into a vector store, on the machine you have.

The public face. Everything is imported when it is first used, so that ``import penstock`` costs nothing: in particular
it starts neither JAX nor a Milvus client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engine import Fail, PipelineBuilder, Report, Retry, Skip
    from .engine.config import ServiceConfig
    from .engine.jobs.images import embed_images
    from .engine.jobs.pipeline import ImageEmbeddingPipeline
    from .engine.jobs.streaming import StreamingMultiprocessPreprocessor
    from .engine.workers import WorkerPool
    from .errors import ConfigError, PenstockError, PipelineFailure
    from .preprocess import PreprocessSpec

_HOMES = {
    "ConfigError": "errors",
    "Fail": "engine",
    "ImageEmbeddingPipeline": "engine.jobs.pipeline",
    "PenstockError": "errors",
    "PipelineBuilder": "engine",
    "PipelineFailure": "errors",
    "PreprocessSpec": "preprocess",
    "Report": "engine",
    "Retry": "engine",
    "ServiceConfig": "engine.config",
    "Skip": "engine",
    "StreamingMultiprocessPreprocessor": "engine.jobs.streaming",
    "WorkerPool": "engine.workers",
    "embed_images": "engine.jobs.images",
}

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
    "embed_images",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
