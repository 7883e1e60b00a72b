"""Embedded colour profiles: whatever a picture was made in, it leaves as sRGB."""

from __future__ import annotations

import functools
import io
from typing import Any, Final, cast

import numpy as np
from PIL import Image, ImageCms

from ..spec import Cmyk

_MAX_PROFILE: Final = 4 * 2**20
"""Bytes; press profiles have up to 2 MiB, and what is larger is not worth the memory of the cache."""

_NEARLY: Final = 2
"""Of 255. A profile that moves no colour by more than this is sRGB under one of its many names."""

_SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


def to_rgb(image: Image.Image, profile: bytes | None, cmyk: Cmyk) -> Image.Image:
    """An L, RGB or CMYK picture as sRGB (L stays L when no profile tints it).

    Args:
        image: Mode L, RGB or CMYK; not changed.
        profile: The embedded ICC profile. One that is broken or made for another mode is ignored: the picture is good.
        cmyk: "naive" ignores the profile of CMYK pictures.
    """
    if profile and len(profile) <= _MAX_PROFILE and not (image.mode == "CMYK" and cmyk == "naive"):
        transform = _transform(profile, image.mode)
        if transform is not None:
            return transform.apply(image)
    return image.convert("RGB") if image.mode == "CMYK" else image


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion to sRGB, or None where there is nothing to convert.

    Building one takes milliseconds, and collections have few different profiles. lcms transforms keep no state, so
    threads may share one.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if cast("Any", source.profile).xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode != "CMYK" and _is_identity(transform, mode) else transform
    except Exception:  # noqa: BLE001  (lcms and Pillow raise OSError, PyCMSError, ValueError... on a broken profile)
        return None


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    if mode == "L":
        probe = Image.fromarray(levels[None, :])
    else:
        probe = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))
    before = np.asarray(probe.convert("RGB"), np.int16)
    after = np.asarray(transform.apply(probe), np.int16)
    return int(np.abs(after - before).max()) <= _NEARLY
