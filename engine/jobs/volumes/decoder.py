"""From the bytes of a page to its pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ....preprocess import PreprocessSpec
from ....preprocess.decode.decode import check_pillow
from ....preprocess.decode.whole import decode_whole
from ...config.volumes import PipelineConfig
from .pages import DecodedFrame, ImageTask


class Decoder:
    """Decodes pages at their full size, upright, in 8 bits. Another one is any object with the same `decode`.

    Args:
        cfg: limits, and the background under transparent pixels.

    Raises:
        ConfigError: a setting is wrong, or Pillow is set to accept broken files.
    """

    def __init__(self, cfg: PipelineConfig) -> None:
        check_pillow()
        names = ("max_pixels", "max_side", "max_file_bytes", "background", "value_range")
        limits: dict[str, Any] = {name: value for name in names if (value := getattr(cfg, name)) is not None}
        self._spec = PreprocessSpec(**limits)

    def decode(self, task: ImageTask, data: bytes) -> DecodedFrame:
        """The pixels of a page. Called in several threads.

        Args:
            task: the page.
            data: its file.

        Raises:
            ItemError: it is no picture, is broken, or too large.
        """
        return DecodedFrame(replace(task, size=len(data)), decode_whole(data, self._spec))
