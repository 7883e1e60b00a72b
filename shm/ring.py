"""A ring of slots in one segment, and the header that tells a reader that a slot is whole.

Header of a slot, 64 bytes, native 8-byte words::

    0  magic      the layout's version; never changes
    1  writing    generation that somebody has begun to write
    2  ready      generation that was written to its end
    3  rows       how many rows it has
    4  mark       row being worked on, plus one; 0 for none

A writer stamps ``writing``, fills the slot, stamps ``rows``, then ``ready``. A slot is whole for a reader when both
stamps are the generation it was told about; it looks before it uses the slot and again afterwards, so a writer that
begins late is noticed. Each word is one aligned 8-byte store. There is no lock and nothing that two processes
increment: a dead process can leave a slot half written, but nothing that another would wait for. Who may write *when*
is not decided here but by the parent (`SlotTable`) over the socket, which also orders the memory on machines that
reorder stores. A writer that was paused in the middle and goes on after its slot was granted anew would not be noticed
before it commits: the parent makes sure that a worker is dead (`Child.alive`) before it takes its slots back.
"""

from __future__ import annotations

from typing import Self

from ..errors import SharedMemoryError, StaleSlotError
from .janitor import DIRECTORY
from .layout import Place, SlotLayout, SlotView
from .segment import Segment

_MAGIC = int.from_bytes(b"PENSTK\x00\x01", "big")  # the last byte is the version of the header
_WORDS = 5
_IS, _WRITING, _READY, _ROWS, _MARK = range(_WORDS)


class Ring:
    """Slots in shared memory. Made by the parent, attached by its worker.

    Attributes:
        layout: what a slot looks like.
        slots: how many there are.
    """

    def __init__(self, segment: Segment, layout: SlotLayout, slots: int) -> None:
        self.layout = layout
        self.slots = slots
        self._segment = segment
        self._stride = layout.stride

    @classmethod
    def create(cls, layout: SlotLayout, slots: int, *, directory: str = DIRECTORY) -> Self:
        """Make a ring in a new segment, ``slots * layout.stride`` bytes, all reserved.

        Raises:
            SharedMemoryFullError: there is no room for it.
            SharedMemoryError: the directory cannot hold it at all.
        """
        if slots < 1:
            raise ValueError(f"a ring needs at least one slot, not {slots}")
        ring = cls(Segment.create(layout.ring_bytes(slots), directory=directory), layout, slots)
        for slot in range(slots):
            with ring._header(slot) as header:
                header[_IS] = _MAGIC
        return ring

    @classmethod
    def attach(cls, fd: int, layout: SlotLayout, slots: int) -> Self:
        """Map a ring whose file descriptor came over a socket. Takes the descriptor over and closes it.

        Raises:
            SharedMemoryError: this is not a ring, or one of another layout or version.
        """
        ring = cls(Segment.attach(fd, layout.ring_bytes(slots)), layout, slots)
        for slot in range(slots):
            with ring._header(slot) as header:
                magic = header[_IS]
            if magic != _MAGIC:
                ring.close()
                raise SharedMemoryError(
                    f"slot {slot} has no header of ours ({magic:#018x}): another layout or version?"
                )
        return ring

    @property
    def name(self) -> str:
        """Name of the segment; ``"/" + name`` is the key for Triton."""
        return self._segment.name

    @property
    def fd(self) -> int:
        """The owner's file descriptor, to be sent to a worker; -1 in the worker."""
        return self._segment.fd

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory."""
        return self._segment.nbytes

    def view(self, slot: int) -> SlotView:
        """The arrays of a slot, without a copy; zeros in a new ring.

        Valid as memory for as long as they are referenced, even after ``close``; valid as data while the slot is yours.

        Raises:
            SharedMemoryError: the ring is closed.
        """
        return self.layout.view(self._segment.buf, self.offset(slot))

    def offset(self, slot: int) -> int:
        """Where a slot begins, in bytes from the start of the segment.

        Raises:
            IndexError: there is no such slot.
        """
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} of a ring of {self.slots}")
        return slot * self._stride

    def place(self, slot: int) -> Place:
        """Where a slot lies, for another process.

        Raises:
            IndexError: there is no such slot.
        """
        begin = self.offset(slot)
        return Place(self.name, self.nbytes, {name: begin + at for name, at in self.layout.offsets.items()})

    # -- writer -------------------------------------------------------------------------------------------------------

    def begin(self, slot: int, generation: int) -> None:
        """Say that this generation is being written from now on. Before the first byte."""
        with self._header(slot) as header:
            header[_WRITING] = generation
            header[_MARK] = 0

    def mark(self, slot: int, row: int | None) -> None:
        """Say which row is being worked on, so that the parent knows it should this process die of it."""
        with self._header(slot) as header:
            header[_MARK] = 0 if row is None else row + 1

    def commit(self, slot: int, generation: int, rows: int) -> None:
        """Say that the slot holds so many rows of this generation. After the last byte.

        Raises:
            StaleSlotError: the slot is no longer this writer's.
        """
        with self._header(slot) as header:
            if header[_WRITING] != generation:
                raise StaleSlotError(
                    f"slot {slot}: wrote generation {generation}, {header[_WRITING]} has begun meanwhile"
                )
            header[_ROWS] = rows
            header[_READY] = generation

    # -- reader -------------------------------------------------------------------------------------------------------

    def check(self, slot: int, generation: int, rows: int) -> None:
        """Make sure that a slot holds so many rows of this generation, whole. Before it is used, and again afterwards.

        Raises:
            StaleSlotError: it does not, or not any more; what was read must not be used.
        """
        with self._header(slot) as header:
            writing, ready, held = header[_WRITING], header[_READY], header[_ROWS]
        if (writing, ready, held) != (generation, generation, rows):
            raise StaleSlotError(
                f"slot {slot} should hold {rows} rows of generation {generation}, but {held} rows of {ready} are ready "
                f"and {writing} was begun last"
            )

    def progress(self, slot: int, generation: int) -> tuple[bool, int | None]:
        """How far a writer came: whether it has begun this generation, and which row it was working on."""
        with self._header(slot) as header:
            begun, mark = header[_WRITING] == generation, header[_MARK]
        return begun, mark - 1 if begun and mark else None

    # -- life ---------------------------------------------------------------------------------------------------------

    def unlink(self) -> None:
        """Take the segment's name away; mappings, and attaching by ``fd``, still work. Idempotent."""
        self._segment.unlink()

    def close(self) -> None:
        """Unmap, and unlink if it is ours. Idempotent. Views that are still held stay readable."""
        self._segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _header(self, slot: int) -> memoryview:
        # A cast to native words, not struct.pack_into("<Q"), which stores byte by byte and could be seen half done.
        offset = self.offset(slot)
        return self._segment.buf[offset : offset + _WORDS * 8].cast("Q")
