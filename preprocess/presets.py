"""The preprocessing of models people use, under the names they know."""

from __future__ import annotations

from typing import Any, Final

from ..errors import ConfigError
from .spec import PreprocessSpec

_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)

PRESETS: Final[dict[str, PreprocessSpec]] = {
    # torchvision.transforms._presets.ImageClassification: crop 224, resize 256, bilinear, antialias. (The V2 weights of
    # some models were trained with resize=232: override it.)
    "imagenet": PreprocessSpec(size=224, resize=256, interpolation="bilinear", mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    # openai/CLIP clip/clip.py, _transform: Resize(n_px, BICUBIC), CenterCrop(n_px), these mean and std.
    "clip": PreprocessSpec(
        size=224,
        resize=224,
        interpolation="bicubic",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
    # google/siglip-base-patch16-224 preprocessor_config.json: size 224 x 224 without a crop, resample 3 (bicubic),
    # mean and std 0.5. (SigLIP 2's fixed-size models say resample 2: interpolation="bilinear".)
    "siglip": PreprocessSpec(size=224, resize=None, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    # facebookresearch/dinov2 dinov2/data/transforms.py, make_classification_eval_transform.
    "dinov2": PreprocessSpec(size=224, resize=256, interpolation="bicubic", mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
}
"""Name -> specification, at the model's usual 224 pixels."""


def preset(name: str, **overrides: Any) -> PreprocessSpec:
    """One of `PRESETS`, with some fields changed.

    Another `size` takes `resize` along in proportion (imagenet at 112 resizes to 128), unless `resize` is given too.

    Args:
        name: imagenet, clip, siglip or dinov2.
        **overrides: Fields of `PreprocessSpec`.

    Raises:
        ConfigError: The name or a field is not known, or a value is out of its range.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset: {name!r} is not known; there are {', '.join(sorted(PRESETS))}")
    base = PRESETS[name]
    size = overrides.get("size", base.size)
    if base.resize is not None and isinstance(size, int):
        overrides.setdefault("resize", round(base.resize * size / base.size))
    return base.replace(**overrides)
