"""Layout of a slot, and the header that tells whether it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError, SharedMemoryError, StaleSlotError
from penstock.preprocess.slot_layout import pixel_layout
from penstock.shm import ArraySpec, Ring, SlotLayout

LAYOUT = SlotLayout(4, (ArraySpec("pixels", (3, 5, 7), "float32"), ArraySpec("embeddings", (6,), "float32")))


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    with Ring.create(LAYOUT, 3, directory=str(tmp_path)) as made:
        yield made


arrays = st.builds(
    ArraySpec,
    st.text(min_size=1, max_size=5),
    st.lists(st.integers(0, 40), max_size=3).map(tuple),
    st.sampled_from(["float32", "float16", "uint8", "int64", "bool"]),
)
layouts = st.builds(
    SlotLayout,
    st.integers(1, 70),
    st.lists(arrays, max_size=4, unique_by=lambda array: array.name).map(tuple),
)


@given(layouts, st.integers(1, 5))
def test_areas_are_aligned_and_do_not_overlap(layout: SlotLayout, slots: int) -> None:
    """The header, then the arrays in order, each at a multiple of 64; slots at whole pages."""
    assert list(layout.offsets) == [array.name for array in layout.arrays]
    end = layout.header_bytes
    for array in layout.arrays:
        offset = layout.offsets[array.name]
        assert end <= offset < end + 64
        assert offset % 64 == 0
        end = offset + layout.rows * array.row_bytes
    assert end <= layout.stride < end + 4096
    assert layout.stride % 4096 == 0
    assert layout.ring_bytes(slots) == slots * layout.stride


@given(layouts)
def test_a_layout_survives_json(layout: SlotLayout) -> None:
    """It is how the other process gets it."""
    assert SlotLayout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


@given(layouts)
def test_a_private_view_is_like_a_real_one(layout: SlotLayout) -> None:
    """Same shapes, types and alignment, zeroed, writable."""
    view = layout.private_view()
    assert list(view) == [array.name for array in layout.arrays]
    for array in layout.arrays:
        found = view[array.name]
        assert found.shape == (layout.rows, *array.shape)
        assert found.dtype == layout[array.name].dtype
        assert not found.size or found.ctypes.data % 64 == 0
        assert not found.any()
        found[...] = 1


@given(layouts)
def test_an_array_that_a_slot_has_not_is_a_key_error(layout: SlotLayout) -> None:
    """By its name."""
    with pytest.raises(KeyError, match="no such name"):
        layout["no such name"]


def array(*, name: str = "pixels", shape: tuple[int, ...] = (3, 2), dtype: str = "uint8") -> ArraySpec:
    return ArraySpec(name, shape, dtype)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: SlotLayout(0), "rows"),
        (lambda: SlotLayout(1, (array(), array(dtype="float32"))), "names of their own"),
        (lambda: array(shape=(3, -1)), "'pixels'.*negative"),
        (lambda: array(dtype="object"), "'object' is no type of numbers"),
        (lambda: array(dtype="nothing"), "'nothing' is no type of numbers"),
        (lambda: pixel_layout(0, (3, 2, 2)), "rows"),
        (lambda: pixel_layout(1, ()), "pixel_shape"),
        (lambda: pixel_layout(1, (3, 0)), "pixel_shape"),
        (lambda: pixel_layout(1, (3,), "float64"), "pixel_dtype"),
        (lambda: pixel_layout(1, (3,), "uint8", -1), "dimension"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(make: Callable[[], object], why: str) -> None:
    """By the name of the field."""
    with pytest.raises(ConfigError, match=why):
        make()


def test_both_ends_see_the_same_memory(ring: Ring) -> None:
    """What the worker writes through its mapping, the parent reads in place."""
    with Ring.attach(os.dup(ring.fd), LAYOUT, 3) as worker:
        worker.begin(1, 5)
        worker.view(1)["pixels"][...] = 2.5
        worker.view(1)["embeddings"][...] = -1
        worker.commit(1, 5, 4)
    ring.check(1, 5, 4)
    assert (ring.view(1)["pixels"] == 2.5).all()
    assert (ring.view(1)["embeddings"] == -1).all()
    assert not ring.view(0)["pixels"].any()
    assert not ring.view(2)["pixels"].any()


def test_filling_a_slot_leaves_its_neighbours_and_header_alone(ring: Ring) -> None:
    """All bytes of both areas, in every slot."""
    for slot in range(3):
        ring.begin(slot, 10 + slot)
        ring.view(slot)["pixels"].view(np.uint8)[...] = 255
        ring.view(slot)["embeddings"].view(np.uint8)[...] = 255
        ring.commit(slot, 10 + slot, slot)
    for slot in range(3):
        ring.check(slot, 10 + slot, slot)


def test_a_slot_that_is_not_whole_is_refused(ring: Ring) -> None:
    """Not begun, begun, of another generation, with other rows, begun anew."""
    with pytest.raises(StaleSlotError):
        ring.check(0, 1, 0)
    ring.begin(0, 1)
    with pytest.raises(StaleSlotError):
        ring.check(0, 1, 4)
    ring.commit(0, 1, 4)
    ring.check(0, 1, 4)
    for generation, rows in ((2, 4), (1, 3)):
        with pytest.raises(StaleSlotError, match="slot 0 should hold"):
            ring.check(0, generation, rows)
    ring.begin(0, 2)
    with pytest.raises(StaleSlotError, match="2 was begun last"):
        ring.check(0, 1, 4)


def test_a_writer_that_lost_its_slot_cannot_commit(ring: Ring) -> None:
    """It hears of it, and the stamps of the new owner stay."""
    ring.begin(0, 1)
    ring.begin(0, 2)
    with pytest.raises(StaleSlotError, match="wrote generation 1"):
        ring.commit(0, 1, 4)
    ring.commit(0, 2, 3)
    ring.check(0, 2, 3)


def test_progress_tells_which_row_a_writer_was_at(ring: Ring) -> None:
    """For this generation only: what another left there means nothing."""
    assert ring.progress(0, 1) == (False, None)
    ring.begin(0, 1)
    assert ring.progress(0, 1) == (True, None)
    ring.mark(0, 0)
    assert ring.progress(0, 1) == (True, 0)
    ring.mark(0, 3)
    assert ring.progress(0, 1) == (True, 3)
    assert ring.progress(0, 2) == (False, None)
    ring.mark(0, None)
    assert ring.progress(0, 1) == (True, None)


def test_another_layout_or_file_is_refused(ring: Ring, tmp_path: Path) -> None:
    """Rather than read as garbage; the descriptor is closed all the same."""
    other = pixel_layout(4, (3, 64, 64), "uint8", 0)
    with pytest.raises(SharedMemoryError, match="not the same ring"):
        Ring.attach(os.dup(ring.fd), other, 3)
    path = tmp_path / "zeros"
    path.write_bytes(bytes(LAYOUT.ring_bytes(3)))
    fd = os.open(path, os.O_RDWR)
    with pytest.raises(SharedMemoryError, match="no header of ours"):
        Ring.attach(fd, LAYOUT, 3)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_there_is_no_slot_beyond_the_last(ring: Ring) -> None:
    """Neither before the first: a negative number must not wrap around."""
    for slot in (-1, 3):
        with pytest.raises(IndexError):
            ring.view(slot)


def test_views_outlive_the_ring(tmp_path: Path) -> None:
    """Whoever still looks at a slot after close sees memory, not a crash; new views are refused."""
    ring = Ring.create(LAYOUT, 1, directory=str(tmp_path))
    view = ring.view(0)
    view["pixels"][...] = 9
    ring.close()
    ring.close()
    assert (view["pixels"] == 9).all()
    with pytest.raises(SharedMemoryError, match="closed"):
        ring.view(0)


def test_a_ring_needs_a_slot(tmp_path: Path) -> None:
    """None would wait for ever."""
    with pytest.raises(ValueError, match="at least one"):
        Ring.create(LAYOUT, 0, directory=str(tmp_path))
