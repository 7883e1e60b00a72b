"""What every detector is: something that finds things of named classes in frames."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError, DetectError

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_NAMED: Final = 12  # classes that a message lists


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one frame, the surest first.

    Attributes:
        boxes: float32 ``[n, 4]``: left, top, right, bottom, in pixels of the frame and within it.
        scores: float32 ``[n]``, 0..1.
        classes: n names.
    """

    boxes: Floats
    scores: Floats
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.classes)

    def has(self, wanted: Collection[str]) -> bool:
        """Whether something of a wanted class was found: the frame passes."""
        return any(name in wanted for name in self.classes)


class Detector(ABC):
    """Finds things in frames.

    It is made from a spec string, in the parent and in a worker alike (`parse_detector`), which costs nothing. Its
    life: ``check`` in the parent, before a job starts; ``open`` -> ``detect`` many times -> ``close`` in a worker
    process or a thread, one call at a time. What is found in a frame depends on that frame alone.

    Attributes:
        name: what messages and reports call it.
        spec: what `parse_detector` makes the same detector from.
    """

    def __init__(self, name: str, spec: str) -> None:
        self.name = name
        self.spec = spec

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of what it can find. May load the model.

        Raises:
            ConfigError: it does not say, or it is no detector.
            DetectorError: it cannot be loaded.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever something else would be found in the same frame. Needs no `open`.

        Raises:
            ConfigError: what it is made of cannot be found.
        """

    def check(self, wanted: Collection[str] = ()) -> None:
        """Refuse classes that it does not know, and a model that it cannot read, before anything is started.

        Raises:
            ConfigError: the message says which, and what there is.
            DetectorError: it cannot work at all.
        """
        classes = self.classes
        for name in sorted(set(wanted) - set(classes)):
            near = difflib.get_close_matches(name, classes, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"classes: {self.name} finds no {name!r}, it finds {listed(classes)}{hint}")

    @abstractmethod
    def open(self, threads: int = 1) -> None:
        """Load what is needed.

        Args:
            threads: that compute one call, where its spec says nothing.

        Raises:
            ConfigError: settings do not fit.
            DetectorError: it cannot work at all.
        """

    @abstractmethod
    def detect(self, frames: Sequence[UInt8]) -> list[Detections | DetectError]:
        """Look at frames.

        Args:
            frames: uint8 ``[height, width, 3]`` each, sRGB; sizes may differ.

        Returns:
            One answer for each; an error where it is no answer at all.

        Raises:
            DetectorError: it does not work at all.
        """

    def close(self) -> None:  # noqa: B027  (one may hold nothing)
        """Let go of models and threads. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r})"


def listed(names: Sequence[str]) -> str:
    """Names for a message, not more than a line of them."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
