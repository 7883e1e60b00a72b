"""A user's own JAX function in place of normalization: found by name, its output known before anything runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from ..errors import ConfigError
from ..lazy import import_named

Transform = Callable[[Any], Any]
"""One picture, float32 ``[size, size, 3]`` of 0..255, to one array of a fixed shape. Must be traceable by `jax.jit`."""


def find_transform(name: str) -> Transform:
    """Import "module:function".

    Raises:
        ConfigError: The module cannot be imported, or has no such function.
    """
    try:
        found = import_named(name)
    except Exception as error:
        raise ConfigError(f"transform: {name!r} cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise ConfigError(f"transform: {name!r} is not a function")
    return found  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=16)
def output_of(name: str, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of what a transform makes of one picture, by tracing it.

    Raises:
        ConfigError: It cannot be imported or traced, or returns something else than one array.
    """
    import jax

    transform = find_transform(name)
    try:
        picture: Any = cast("Any", jax).ShapeDtypeStruct((size, size, 3), np.float32)
        out = jax.eval_shape(transform, picture)
    except Exception as error:
        raise ConfigError(f"transform: {name!r} cannot be traced ({type(error).__name__}: {error})") from error
    if not hasattr(out, "shape"):
        raise ConfigError(f"transform: {name!r} must return one array, not {type(out).__name__}")
    return tuple(out.shape), np.dtype(out.dtype)
