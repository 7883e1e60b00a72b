"""What models say of the pictures they take, and how it is held against the pixels: the same for every runtime."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ConfigError
from .base import Pixels


def geometry(where: str, row: Sequence[int | None]) -> tuple[str | None, int | None]:
    """Layout and side of the square, as far as the shape of one picture tells; None where it is open.

    Args:
        where: begins the message, e.g. ``model 'clip': input 'IMAGE' has shape [3, 224, 336]``.
        row: three sizes, None for those that are open.

    Raises:
        ConfigError: no shape of pictures.
    """
    first, middle, last = row
    if first == 3:
        layout, sides = "NCHW", {middle, last}
    elif last == 3:
        layout, sides = "NHWC", {first, middle}
    elif first is None or last is None:
        return None, None
    else:
        raise ConfigError(f"{where}, without 3 colour channels")
    if len(sides - {None}) > 1:
        raise ConfigError(f"{where}; only squares can be made")
    return layout, next(iter(sides - {None}), None)


def check_pixels(name: str, spec: Pixels, dtype: str, layout: str | None, size: int | None) -> None:
    """Refuse pixels that a model does not take.

    Args:
        name: of the embedder.
        spec: what it would get. A user's own transform is let pass: only a trial can tell.
        dtype, layout, size: what the model takes; None: any.

    Raises:
        ConfigError: the message names the setting to change.
    """
    if spec.transform is not None:
        return
    if spec.dtype != dtype:
        raise ConfigError(f"{name} takes {dtype} pixels and would get {spec.dtype}: set --dtype {dtype}")
    if layout and spec.layout != layout:
        raise ConfigError(f"{name} takes {layout} pixels and would get {spec.layout}: set layout={layout}")
    if size and spec.size != size:
        raise ConfigError(
            f"{name} takes {size} x {size} pixels and would get {spec.size} x {spec.size}: set --image-size {size}"
        )
