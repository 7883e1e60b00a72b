"""Embedders: what turns a slot of pixels into vectors. See the README beside this file."""

from .base import ArrayView, Embedder, PixelPreferences, Pixels, Refusals, Runs, View, nonfinite_rows
from .callables import JaxEmbedder, PythonEmbedder
from .gist import Gist
from .onnx import OnnxEmbedder
from .registry import EMBEDDERS, SCHEMES, Factory, parse_embedder

__all__ = [
    "EMBEDDERS",
    "SCHEMES",
    "ArrayView",
    "Embedder",
    "Factory",
    "Gist",
    "JaxEmbedder",
    "OnnxEmbedder",
    "PixelPreferences",
    "Pixels",
    "PythonEmbedder",
    "Refusals",
    "Runs",
    "View",
    "nonfinite_rows",
    "parse_embedder",
]
