"""Layout of a slot, and the header that tells whether it is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError, SharedMemoryError, StaleSlotError
from penstock.shm import Ring, SlotLayout

LAYOUT = SlotLayout(4, (3, 5, 7), "float32", 6)


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    with Ring.create(LAYOUT, 3, directory=str(tmp_path)) as made:
        yield made


layouts = st.builds(
    SlotLayout,
    st.integers(1, 70),
    st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["float32", "float16", "uint8"]),
    st.integers(0, 600),
)


@given(layouts, st.integers(1, 5))
def test_areas_are_aligned_and_do_not_overlap(layout: SlotLayout, slots: int) -> None:
    """Header, pixels, embeddings, in that order, each at a multiple of 64; slots at whole pages."""
    assert layout.header_bytes <= layout.pixels_offset
    assert layout.pixels_offset + layout.rows * layout.row_bytes <= layout.embeddings_offset
    assert layout.embeddings_offset + layout.embedding_bytes <= layout.stride
    assert layout.pixels_offset % 64 == layout.embeddings_offset % 64 == layout.stride % 4096 == 0
    assert layout.ring_bytes(slots) == slots * layout.stride
    assert layout.stride < layout.rows * (layout.row_bytes + 4 * layout.dimension) + 64 + 64 + 64 + 4096


@given(layouts)
def test_a_layout_survives_json(layout: SlotLayout) -> None:
    """It is how the other process gets it."""
    assert SlotLayout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


@given(layouts)
def test_a_private_view_is_like_a_real_one(layout: SlotLayout) -> None:
    """Same shapes, types and alignment, zeroed, writable."""
    view = layout.private_view()
    assert view.pixels.shape == (layout.rows, *layout.pixel_shape)
    assert view.pixels.dtype == layout.pixel_dtype
    assert view.embeddings.shape == (layout.rows, layout.dimension)
    assert view.embeddings.dtype == np.float32
    assert view.pixels.ctypes.data % 64 == 0
    assert not layout.dimension or view.embeddings.ctypes.data % 64 == 0
    assert not view.pixels.any()
    view.pixels[...] = 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ((0, (3, 2, 2)), "rows"),
        ((1, ()), "pixel_shape"),
        ((1, (3, 0)), "pixel_shape"),
        ((1, (3,), "float64"), "pixel_dtype"),
        ((1, (3,), "uint8", -1), "dimension"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(wrong: tuple[int, tuple[int, ...]], field: str) -> None:
    """By the name of the field."""
    with pytest.raises(ConfigError, match=field):
        SlotLayout(*wrong)


def test_both_ends_see_the_same_memory(ring: Ring) -> None:
    """What the worker writes through its mapping, the parent reads in place."""
    with Ring.attach(os.dup(ring.fd), LAYOUT, 3) as worker:
        worker.begin(1, 5)
        worker.view(1).pixels[...] = 2.5
        worker.view(1).embeddings[...] = -1
        worker.commit(1, 5, 4)
    ring.check(1, 5, 4)
    assert (ring.view(1).pixels == 2.5).all()
    assert (ring.view(1).embeddings == -1).all()
    assert not ring.view(0).pixels.any()
    assert not ring.view(2).pixels.any()


def test_filling_a_slot_leaves_its_neighbours_and_header_alone(ring: Ring) -> None:
    """All bytes of both areas, in every slot."""
    for slot in range(3):
        ring.begin(slot, 10 + slot)
        ring.view(slot).pixels.view(np.uint8)[...] = 255
        ring.view(slot).embeddings.view(np.uint8)[...] = 255
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
    other = SlotLayout(4, (3, 64, 64), "uint8", 0)
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
    view.pixels[...] = 9
    ring.close()
    ring.close()
    assert (view.pixels == 9).all()
    with pytest.raises(SharedMemoryError, match="closed"):
        ring.view(0)


def test_a_ring_needs_a_slot(tmp_path: Path) -> None:
    """None would wait for ever."""
    with pytest.raises(ValueError, match="at least one"):
        Ring.create(LAYOUT, 0, directory=str(tmp_path))
