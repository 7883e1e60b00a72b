"""Detectors made here: a real ONNX model that finds red, green and blue squares, in any layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

SIDE = 64
CELL = 16
COLOURS = ("red", "green", "blue")

UInt8 = npt.NDArray[np.uint8]
Layout = Literal["v8", "v5", "nms", "detr", "detr softmax", "ssd", "ssd no count", "unknown"]


def write_detector(
    path: Path,
    layout: Layout,
    classes: int = 3,
    batch: int | str = "n",
    kind: str = "FLOAT",
    nchw: bool = True,
    meta: dict[str, str] | None = None,
    size: int | str = SIDE,
    turned: bool = False,
    plain_names: bool = False,
    inputs: int = 1,
    at_once: int = 0,
) -> str:
    """A model that looks at 4 x 4 cells of a square of 64 pixels: how red, green and blue each of them is, 0..1.

    Args:
        path: the file that is written.
        layout: of what comes out.
        classes: how many of the three colours it knows.
        batch: a number, or the name of an open axis.
        kind: of the pixels: FLOAT, FLOAT16, UINT8.
        nchw: where the channels are.
        meta: what is written beside the model; None: the names, as Ultralytics writes them.
        size: as the file says it; the model takes 64 only.
        turned: of v8 and v5: the last two axes the other way round.
        plain_names: outputs have names that say nothing.
        inputs: that it has, of which one is used.
        at_once: pictures that it can take whatever its file says; 0: any number.

    Returns:
        The path.
    """
    import onnx

    maker = _Maker(onnx, classes, at_once)
    graph = maker.graph(layout, kind, nchw, turned)
    names = [f"output{place}" if plain_names else name for place, name in enumerate(graph)]
    for name, found in zip(names, graph.values(), strict=True):
        maker.add("Identity", [found], name)
    shape: list[int | str] = [batch, 3, size, size] if nchw else [batch, size, size, 3]
    info = onnx.helper.make_tensor_value_info
    given = [info("images", getattr(onnx.TensorProto, kind), shape)]
    given += [info(f"extra{place}", onnx.TensorProto.FLOAT, [1]) for place in range(1, inputs)]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            maker.nodes, "squares", given, [info(name, onnx.TensorProto.FLOAT, None) for name in names], maker.constants
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    first = int(layout.startswith("ssd"))
    said = {"names": str(dict(enumerate(COLOURS[:classes], first)))} if meta is None else meta
    onnx.helper.set_model_props(made, said)
    onnx.save(made, str(path))
    return str(path)


class _Maker:
    """Nodes and constants of a graph."""

    def __init__(self, onnx: Any, classes: int, at_once: int) -> None:
        self.onnx, self.classes, self.at_once = onnx, classes, at_once
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: npt.ArrayLike, dtype: Any = np.float32) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def graph(self, layout: Layout, kind: str, nchw: bool, turned: bool) -> dict[str, str]:
        """Names of the outputs -> what is in them."""
        scores = self._scores(kind, nchw)  # [n, C, 16]
        zero = self.add("Mul", [self._sum(scores, 1), self.constant("none", 0.0)], "zero")  # [n, 1, 16]
        if layout in ("v8", "v5"):
            parts = [self._boxes(zero, "centre"), scores]
            if layout == "v5":
                parts.insert(1, self.add("Add", [zero, self.constant("sure", 0.9)], "objectness"))
            rows = self.add("Concat", parts, "rows", axis=1)
            straight = (layout == "v8") != turned
            return {"output0": rows if straight else self._transposed(rows, "columns")}
        best = self.add("ReduceMax", [scores], "best", axes=[1])
        number = self.add("ArgMax", [scores], "number", axis=1)
        which = self.add("Cast", [number], "which", to=self.onnx.TensorProto.FLOAT)
        if layout == "nms":
            rows = self.add("Concat", [self._boxes(zero, "corners"), best, which], "rows", axis=1)
            return {"output0": self._transposed(rows, "columns")}
        if layout.startswith("detr"):
            boxes = self._transposed(self._boxes(zero, "centre", SIDE), "boxes")
            return {"pred_boxes": boxes, "logits": self._transposed(self._logits(scores, zero, layout), "columns")}
        if layout.startswith("ssd"):
            return self._ssd(layout, zero, best, which)
        return {"heat": best, "labels": which}

    def _scores(self, kind: str, nchw: bool) -> str:
        """``[n, C, 16]``: the mean over each cell of one and a half times what a channel has over the mean of all."""
        pixels = self.add("Cast", ["images"], "floats", to=self.onnx.TensorProto.FLOAT)
        if not nchw:
            pixels = self.add("Transpose", [pixels], "channels", perm=[0, 3, 1, 2])
        if kind == "UINT8":
            pixels = self.add("Div", [pixels, self.constant("white", 255.0)], "shares")
        weights = 1.5 * (np.eye(3) - 1 / 3)[: self.classes, :, None, None]
        over = self.add("Relu", [self.add("Conv", [pixels, self.constant("weights", weights)], "differences")], "over")
        cells = self.add("AveragePool", [over], "cells", kernel_shape=[CELL, CELL], strides=[CELL, CELL])
        shape = self.constant("flat", [self.at_once, self.classes, -1], np.int64)
        scores = self.add("Reshape", [cells, shape], "raw")
        # Of a square that is black all over the logarithm is -inf, and a score of nothing times that is NaN.
        dark = self.add("ReduceMax", [pixels], "light", axes=[1, 2, 3])
        flat = self.add("Reshape", [dark, self.constant("each", [-1, 1, 1], np.int64)], "lights")
        poison = self.add("Mul", [self.add("Log", [flat], "logarithm"), self.constant("not", 0.0)], "poison")
        return self.add("Add", [scores, poison], "scores")

    def _boxes(self, zero: str, how: Literal["centre", "corners", "turned"], over: int = 1) -> str:
        """``[n, 4, 16]`` of the cells."""
        top, left = (places.ravel() * CELL for places in np.mgrid[:4, :4])
        rows = {
            "centre": [left + CELL / 2, top + CELL / 2, np.full(16, CELL), np.full(16, CELL)],
            "corners": [left, top, left + CELL, top + CELL],
            "turned": [top, left, top + CELL, left + CELL],
        }[how]
        return self.add("Add", [self.constant("places", np.stack(rows)[None] / over), zero], "cells of all")

    def _logits(self, scores: str, zero: str, layout: Layout) -> str:
        """By the sigmoid 0.5 for a score of 0.5; or by the softmax, in which "nothing" has the logit 0."""
        steep, middle = self.constant("steep", 20.0), self.constant("middle", 0.5)
        logits = self.add("Mul", [self.add("Sub", [scores, middle], "centred"), steep], "logits of classes")
        return self.add("Concat", [logits, zero], "logits of all", axis=1) if layout == "detr softmax" else logits

    def _ssd(self, layout: Layout, zero: str, best: str, which: str) -> dict[str, str]:
        flat = self.constant("rows", [0, -1], np.int64)
        classes = self.add("Add", [which, self.constant("one", 1.0)], "from one")
        found = {
            "detection_boxes": self._transposed(self._boxes(zero, "turned", SIDE), "boxes"),
            "detection_scores": self.add("Reshape", [best, flat], "flat scores"),
            "detection_classes": self.add("Reshape", [classes, flat], "flat classes"),
        }
        if layout == "ssd":  # the last row does not count
            nothing = self.add("ReduceSum", [zero, self.constant("axes", [1, 2], np.int64)], "nothing", keepdims=0)
            found["num_detections"] = self.add("Add", [nothing, self.constant("fifteen", 15.0)], "how many")
        return found

    def _sum(self, what: str, axis: int) -> str:
        return self.add("ReduceMax", [what], f"{what} at most", axes=[axis])

    def _transposed(self, what: str, name: str) -> str:
        return self.add("Transpose", [what], name, perm=[0, 2, 1])


def frame(width: int, height: int, *squares: tuple[str, int, int, int, int]) -> UInt8:
    """A dark grey frame with coloured rectangles: colour, left, top, right, bottom."""
    pixels = np.full((height, width, 3), 20, np.uint8)
    for colour, left, top, right, bottom in squares:
        pixels[top:bottom, left:right] = [255 * (name == colour) for name in COLOURS]
    return pixels
