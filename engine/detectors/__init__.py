"""Detectors: what is to be seen in a frame, and where. See the README beside this file."""

from .base import Detections, Detector
from .onnx import OnnxDetector
from .registry import DETECTORS, SCHEMES, Factory, parse_detector

__all__ = [
    "DETECTORS",
    "SCHEMES",
    "Detections",
    "Detector",
    "Factory",
    "OnnxDetector",
    "parse_detector",
]
