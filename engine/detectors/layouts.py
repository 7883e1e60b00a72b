"""The ways in which detectors lay out what they found, told apart by the shapes of their outputs. NumPy only.

====== ============================================================================================
v8     ``[B, 4+C, N]``: boxes as centre and size, a score for each class (YOLO v8, v9, v11)
v5     ``[B, N, 5+C]``: the same, times a score of there being anything (YOLO v5, v7, YOLOX)
nms    ``[B, K, 6]``: corners, score, class (YOLO v10, and whatever was exported with its NMS)
detr   logits ``[B, Q, C]`` and boxes ``[B, Q, 4]`` as shares of the square (DETR and its family)
ssd    boxes ``[B, K, 4]`` top, left, bottom, right as shares of the square, scores and classes
       ``[B, K]``, and how many count ``[B]`` (TensorFlow's; the count may be missing)
====== ============================================================================================

``v8`` and ``v5`` with their last two axes turned are read where the user says which it is: taken for the other one with
one class more or less, they would be misread without a word. ``ssd`` counts its classes from 1: 0 is the
background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

import numpy as np

from ...errors import ConfigError, DetectError
from ..embedders.base import Array
from .boxes import Floats, Ints, corners, suppress

Layout = Literal["v8", "v5", "nms", "detr", "ssd"]
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)

Shapes = Mapping[str, tuple[int, ...]]
"""Name of an output -> its shape, in the model's order; the first axis is the batch."""


class Raw(NamedTuple):
    """What a model found in a square: boxes ``[n, 4]`` in its pixels, scores ``[n]``, numbers of classes ``[n]``."""

    boxes: Floats
    scores: Floats
    classes: Ints


@dataclass(frozen=True, slots=True)
class Plan:
    """How outputs are to be read.

    Attributes:
        layout: Which one it is.
        outputs: Names, in the order in which the layout lists them.
        turned: Of v8 and v5: its axes are the other way round.
        nothing: Of detr: the last class is "nothing", and scores are shares of one (softmax).
    """

    layout: Layout
    outputs: tuple[str, ...]
    turned: bool = False
    nothing: bool = False

    @property
    def first(self) -> int:
        """The number of the first class, where nobody says: SSD's 0 is the background."""
        return 1 if self.layout == "ssd" else 0


def find_plan(name: str, shapes: Shapes, classes: int, layout: Layout | None) -> Plan:
    """Which layout outputs have.

    Args:
        name: of the detector, for messages.
        shapes: of the outputs of a run.
        classes: how many the model knows.
        layout: which one the user says it is; None: what fits.

    Raises:
        ConfigError: none fits, or several do; the message has the shapes.
    """
    fitting = [plan for each in LAYOUTS if layout in (None, each) and (plan := _FITS[each](shapes, classes))]
    if len(fitting) == 1 and (layout or not fitting[0].turned):
        return fitting[0]
    found = ", ".join(f"{output} {list(shape)}" for output, shape in shapes.items())
    many = f"{classes} class" if classes == 1 else f"{classes} classes"
    if fitting:
        several = " or ".join(plan.layout + " turned" * plan.turned for plan in fitting)
        raise ConfigError(
            f"{name}: with {many} its outputs may be {several}: {found}; "
            f"say which, as in ?layout={fitting[0].layout}, or are names= not all of its classes?"
        )
    asked = f"layout={layout} does not fit its outputs" if layout else "no layout fits its outputs"
    raise ConfigError(
        f"{name}: {asked} for {many}: {found}; they may be v8 [n, {4 + classes}, N], "
        f"v5 [n, N, {5 + classes}], nms [n, K, 6], detr [n, Q, {classes}] + [n, Q, 4], or "
        "ssd [n, K, 4] + [n, K] + [n, K] (+ [n]); are names= not all of its classes?"
    )


def read(plan: Plan, outputs: Sequence[Array], side: int, conf: float, iou: float) -> Raw:
    """What was found in one picture.

    Args:
        plan: how to read it.
        outputs: of the picture, in the plan's order, without the axis of the batch.
        side: of the square, in pixels.
        conf: the least score.
        iou: see `boxes.suppress`; nothing is suppressed where the model does so itself.

    Returns:
        The surest first.

    Raises:
        DetectError: there are numbers that are none.
    """
    if not all(np.isfinite(output).all() for output in outputs):
        raise DetectError("the model's answer holds numbers that are none (NaN or infinity)")
    floats = [np.asarray(output, np.float32) for output in outputs]
    if plan.layout in ("v8", "v5"):
        return _read_grid(plan, floats[0], conf, iou)
    if plan.layout == "nms":
        return _above(floats[0][:, :4], floats[0][:, 4], floats[0][:, 5].astype(np.int64), conf)
    if plan.layout == "detr":
        return _read_detr(plan, floats[0], floats[1], side, conf)
    return _read_ssd(floats, side, conf)


def _read_grid(plan: Plan, output: Floats, conf: float, iou: float) -> Raw:
    features = output if (plan.layout == "v8") != plan.turned else output.T
    each = features[4:] if plan.layout == "v8" else features[4] * features[5:]
    classes = each.argmax(axis=0)
    scores = np.take_along_axis(each, classes[None], axis=0)[0]
    sure = np.flatnonzero(scores >= conf)
    boxes, scores, classes = corners(features[:4, sure].T), scores[sure], classes[sure]
    stay = suppress(boxes, scores, classes, iou)
    return Raw(boxes[stay], scores[stay], classes[stay])


def _read_detr(plan: Plan, logits: Floats, boxes: Floats, side: int, conf: float) -> Raw:
    if plan.nothing:
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        each = (shares / shares.sum(axis=1, keepdims=True))[:, :-1]
    else:
        each = 1 / (1 + np.exp(-logits.clip(-80, 80)))
    return _above(corners(boxes) * side, each.max(axis=1), each.argmax(axis=1), conf)


def _read_ssd(outputs: Sequence[Floats], side: int, conf: float) -> Raw:
    boxes, scores, classes = outputs[:3]
    count = min(len(scores), max(0, int(outputs[3].item()))) if len(outputs) == 4 else len(scores)
    turned = boxes[:count][:, [1, 0, 3, 2]] * side
    return _above(turned, scores[:count], classes[:count].astype(np.int64), conf)


def _above(boxes: Floats, scores: Floats, classes: Ints, conf: float) -> Raw:
    sure = np.flatnonzero(scores >= conf)
    order = sure[np.argsort(-scores[sure], kind="stable")]
    return Raw(boxes[order], scores[order], classes[order])


def _fit_grid(layout: Layout, width: int, shapes: Shapes) -> Plan | None:
    """One output of three axes, of which the last two have this width; in the layout's own order, if both do."""
    blocks = [(output, shape) for output, shape in shapes.items() if len(shape) == 3]
    if len(blocks) != 1 or width not in blocks[0][1][1:]:
        return None
    output, (_, *axes) = blocks[0]
    return Plan(layout, (output,), turned=axes[layout == "v5"] != width)


def _fit_nms(shapes: Shapes, classes: int) -> Plan | None:
    del classes
    blocks = [(output, shape) for output, shape in shapes.items() if len(shape) == 3]
    return Plan("nms", (blocks[0][0],)) if len(blocks) == 1 and blocks[0][1][2] == 6 else None


def _fit_detr(shapes: Shapes, classes: int) -> Plan | None:
    blocks = [(output, shape) for output, shape in shapes.items() if len(shape) == 3]
    if len(blocks) != 2 or blocks[0][1][1] != blocks[1][1][1]:
        return None
    # By name first: with three or four classes logits have the shape of boxes. Boxes come second.
    blocks.sort(key=lambda block: ("box" in block[0].lower(), block[1][2] == 4))
    (logits, (*_, width)), (boxes, (*_, four)) = blocks
    if four != 4 or width not in (classes, classes + 1):
        return None
    return Plan("detr", (logits, boxes), nothing=width == classes + 1)


def _fit_ssd(shapes: Shapes, classes: int) -> Plan | None:
    del classes
    boxes = [output for output, shape in shapes.items() if len(shape) == 3 and shape[2] == 4]
    if len(boxes) != 1 or len(shapes) not in (3, 4):
        return None
    rows = shapes[boxes[0]][1]
    flat = [output for output, shape in shapes.items() if len(shape) <= 2]
    count = [output for output in flat if _is_count(output, shapes[output], rows)][: len(shapes) - 3]
    each = [output for output in flat if output not in count and shapes[output][1:] == (rows,)]
    if len(count) != len(shapes) - 3 or len(each) != 2:
        return None
    each.sort(key=lambda output: any(word in output.lower() for word in ("class", "label")))
    return Plan("ssd", (boxes[0], *each, *count))


def _is_count(output: str, shape: tuple[int, ...], rows: int) -> bool:
    """One number for each picture; where there is one row only, by its name."""
    if shape[1:] not in ((), (1,)):
        return False
    return rows != 1 or shape[1:] == () or any(word in output.lower() for word in ("num", "count"))


_FITS: Final[dict[Layout, Callable[[Shapes, int], Plan | None]]] = {
    "v8": lambda shapes, classes: _fit_grid("v8", 4 + classes, shapes),
    "v5": lambda shapes, classes: _fit_grid("v5", 5 + classes, shapes),
    "nms": _fit_nms,
    "detr": _fit_detr,
    "ssd": _fit_ssd,
}
