"""From a spec string to an embedder: ``scheme[:rest][?option=value&option=value]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ...registry import Registry
from .base import Embedder, Options
from .callables import make_jax, make_python
from .gist import make_gist
from .onnx import make_onnx
from .signature import make_signature

Factory = Callable[[str, Options], Embedder]
"""Takes what stands between the scheme's colon and the question mark, and the options."""


def _make_triton(protocol: Literal["http", "grpc"]) -> Factory:
    def make(rest: str, options: Options) -> Embedder:
        # Only where one is asked for: workers parse specs too, and have no use for gevent.
        from .triton import make_triton

        return make_triton(protocol, rest, options)

    return make


SCHEMES: dict[str, Factory] = {
    "gist": make_gist,
    "signature": make_signature,
    "onnx": make_onnx,
    "python": make_python,
    "jax": make_jax,
    "triton+http": _make_triton("http"),
    "triton+grpc": _make_triton("grpc"),
}
"""Scheme -> factory, of what is built in."""

EMBEDDERS: Registry[Factory] = Registry("embedder", "penstock.embedders", SCHEMES)
"""These, and what installed packages bring."""


def parse_embedder(spec: str, **options: str | int) -> Embedder:
    """Make an embedder. Costs nothing: no model is loaded, JAX is not imported, before `Embedder.open`.

    Args:
        spec: ``gist``, ``gist:SIZE``, ``onnx:FILE.onnx``, ``python:module:callable``, ``jax:module:callable``,
            ``triton+http://host:port/model``; options may follow, as in ``onnx:clip.onnx?threads=4``.
        **options: more options; they win over those in `spec`.

    Returns:
        An embedder whose ``spec`` makes the same one again, e.g. in a worker.

    Raises:
        ConfigError: the scheme or an option is not known, a value is not allowed, or a plugin is broken.
    """
    factory, rest, given = EMBEDDERS.parsed(spec, options)
    return factory(rest, given)
