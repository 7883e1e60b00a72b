"""Boxes: into the square and back, and which of several on one thing stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.detectors.boxes import corners, letterbox, suppress

Floats = npt.NDArray[np.float32]


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_frame_lies_whole_in_its_square_and_boxes_come_back(width: int, height: int) -> None:
    """In the middle, touching two sides, grey of 114 round it; the frame's own box is all of it."""
    square = np.empty((64, 64, 3), np.uint8)
    place = letterbox(np.full((height, width, 3), 200, np.uint8), square)
    rows, columns = (np.flatnonzero((square == 200).all(axis=2).any(axis=axis)) for axis in (1, 0))
    assert max(len(rows), len(columns)) == 64
    assert abs(rows[0] - (63 - rows[-1])) <= 1
    assert abs(columns[0] - (63 - columns[-1])) <= 1
    inside = np.zeros((64, 64), bool)
    inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    assert (square[inside] == 200).all()
    assert (square[~inside] == 114).all()
    box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
    np.testing.assert_allclose(place.back(box), [[0, 0, width, height]], rtol=1e-4)
    np.testing.assert_allclose(
        place.back(box + np.array((-9, -9, 9, 9), np.float32)), [[0, 0, width, height]], rtol=1e-4
    )


def slowly(boxes: Floats, scores: Floats, classes: list[int], iou: float) -> list[int]:
    """The definition, box by box."""
    kept: list[int] = []
    for number in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        for other in kept:
            a, b = boxes[number].tolist(), boxes[other].tolist()
            wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            shared = max(wide, 0) * max(high, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if classes[number] == classes[other] and union > 0 and shared / union > iou:
                break
        else:
            kept.append(number)
    return kept


@settings(max_examples=60)
@given(st.integers(0, 25), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.9]))
def test_of_boxes_on_one_thing_the_surest_stays(count: int, seed: int, iou: float) -> None:
    """As the definition says, with whole numbers, equal scores and boxes without an area among them."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 12, (count, 2))
    boxes = np.concatenate([start, start + rng.integers(0, 8, (count, 2))], axis=1).astype(np.float32)
    scores, classes = rng.integers(0, 5, count).astype(np.float32), rng.integers(0, 3, count)
    assert suppress(boxes, scores, classes, iou).tolist() == slowly(boxes, scores, classes.tolist(), iou)


def test_classes_leave_each_other_alone() -> None:
    """A rider is where the bicycle is; of two riders one stays. However large the numbers of classes are."""
    boxes = np.array([[0, 0, 10, 10]] * 4, np.float32)
    scores = np.array([0.5, 0.9, 0.7, 0.6], np.float32)
    assert suppress(boxes, scores, np.array([1, 10**6, 1, 10**6]), 0.5).tolist() == [1, 2]


def test_noise_is_bounded() -> None:
    """Of more boxes than a thousand the surest thousand are looked at."""
    start = np.arange(3000, dtype=np.float32)[:, None] * 20
    boxes = np.concatenate([start, start, start + 9, start + 9], axis=1)
    scores = np.linspace(0, 1, 3000, dtype=np.float32)
    assert suppress(boxes, scores, np.zeros(3000, np.int64), 0.5).tolist() == list(range(2999, 1999, -1))


def test_corners_are_half_a_size_from_the_centre() -> None:
    """Of none, too."""
    assert corners(np.array([[10, 20, 4, 6]], np.float32)).tolist() == [[8, 17, 12, 23]]
    assert corners(np.empty((0, 4), np.float32)).shape == (0, 4)
    assert suppress(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), 0.5).tolist() == []
