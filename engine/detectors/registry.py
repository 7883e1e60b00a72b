"""From a spec string to a detector: ``scheme[:rest][?option=value&option=value]``."""

from __future__ import annotations

from collections.abc import Callable

from ...registry import Registry
from ..embedders.base import Options
from .base import Detector
from .onnx import make_onnx_detector

Factory = Callable[[str, Options], Detector]
"""Takes what stands between the scheme's colon and the question mark, and the options."""

SCHEMES: dict[str, Factory] = {"onnx": make_onnx_detector}
"""Scheme -> factory, of what is built in."""

DETECTORS: Registry[Factory] = Registry("detector", "penstock.detectors", SCHEMES)
"""These, and what installed packages bring."""


def parse_detector(spec: str, **options: str | int | float) -> Detector:
    """Make a detector. Costs nothing: no model is loaded before `Detector.check` or `Detector.open`.

    Args:
        spec: ``onnx:FILE.onnx``; options may follow, as in ``onnx:yolo.onnx?conf=0.4``.
        **options: more options; they win over those in `spec`.

    Returns:
        A detector whose ``spec`` makes the same one again, e.g. in a worker.

    Raises:
        ConfigError: the scheme or an option is not known, a value is not allowed, or a plugin is broken.
    """
    factory, rest, given = DETECTORS.parsed(spec, options)
    return factory(rest, given)
