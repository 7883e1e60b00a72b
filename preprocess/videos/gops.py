"""Packets by group of pictures: what can be decoded alone, from a keyframe to the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

    VideoPacket: TypeAlias = Packet[VideoStream]

MAX_PACKETS: Final = 1000
MAX_BYTES: Final = 64 * 2**20
"""What is held of a group. Longer ones (ten minutes from one keyframe to the next exist) are decoded while they are
read, without knowing where they end."""

MAX_LEADING: Final = 64
"""Packets that are held of those that follow a keyframe and are shown before it. Codecs put 16 frames in order at most;
of more the keyframe's time is wrong, and all of a file could follow it."""


@dataclass(slots=True)
class Gop:
    """A group of pictures. Its packets can be asked for while it is the last one that `groups` gave.

    Attributes:
        head: Its keyframe.
        packets: Those behind it, in the order of decoding.
        rest: Further ones of a group that is too long to be held; they are read from the file.
        is_whole: Whether there are none.
        stop: Ticks at which the next group begins, or the video ends; None: not known yet, or the file has no times.
        leading: The next keyframe, and packets behind it that are shown before it (an open group). They need both
            groups, so they are decoded with this one.
        end: Ticks at which the last packet so far ends.
        before: Packets of the group before, where it was held whole: for streams that are refreshed bit by bit, of
            which a packet that is marked as a keyframe is only where that begins.
    """

    head: VideoPacket
    packets: list[VideoPacket] = field(default_factory=list["VideoPacket"])
    rest: Iterator[VideoPacket] = field(default_factory=lambda: iter(()))
    is_whole: bool = True
    stop: int | None = None
    leading: list[VideoPacket] = field(default_factory=list["VideoPacket"])
    end: int | None = None
    before: list[VideoPacket] = field(default_factory=list["VideoPacket"])

    def __iter__(self) -> Iterator[VideoPacket]:
        """What a decoder is fed for its frames, and for those before the next group."""
        yield self.head
        yield from self.packets
        yield from self.rest
        yield from self.leading


class Groups:
    """The groups of a video, in turn.

    Args:
        packets: All packets of its stream.
        ticks: When a packet is shown; None: unknown.
    """

    def __init__(self, packets: Iterable[VideoPacket], ticks: Callable[[VideoPacket], int | None]) -> None:
        self._source = chain(packets)  # of which, unlike of a generator, a part can be taken by ``yield from``
        self._put_back: list[VideoPacket] = []
        self._ticks = ticks
        self._head: VideoPacket | None = None
        self._leading: list[VideoPacket] = []

    def __iter__(self) -> Iterator[Gop]:
        self._head = next((packet for packet in self._packets() if packet.is_keyframe), None)
        self._look_ahead()  # what leads the first group needs one before it: it cannot be decoded
        before: list[VideoPacket] = []
        while self._head is not None:
            head, self._head = self._head, None
            gop = Gop(head, end=self._end(head, None), before=before)
            rest = self._until_next(gop)
            size = head.size
            for packet in rest:
                gop.packets.append(packet)
                size += packet.size
                if len(gop.packets) >= MAX_PACKETS or size > MAX_BYTES:
                    gop.rest, gop.is_whole = chain(rest), False
                    break
            yield gop
            for _ in gop.rest:  # of which nobody wanted more
                pass
            before = [gop.head, *gop.packets] if gop.is_whole else []

    def _packets(self) -> Iterator[VideoPacket]:
        while self._put_back:
            yield self._put_back.pop()
        yield from self._source

    def _until_next(self, gop: Gop) -> Iterator[VideoPacket]:
        """Packets of this group; at its end it knows where the next one begins."""
        for packet in self._packets():
            if packet.is_keyframe and (start := self._ticks(packet)) is not None:
                self._head, gop.stop = packet, start
                self._look_ahead()
                gop.leading = [packet, *self._leading] if self._leading else []
                return
            gop.end = self._end(packet, gop.end)
            yield packet
        gop.stop = gop.end

    def _look_ahead(self) -> None:
        """Take what leads the next group out of the packets."""
        self._leading = []
        start = None if self._head is None else self._ticks(self._head)
        if start is None:
            return
        for packet in self._packets():
            shown = self._ticks(packet)
            if packet.is_keyframe or shown is None or shown >= start or len(self._leading) >= MAX_LEADING:
                self._put_back.append(packet)
                return
            self._leading.append(packet)

    def _end(self, packet: VideoPacket, before: int | None) -> int | None:
        shown = self._ticks(packet)
        if shown is None:
            return before
        end = shown + (packet.duration or 1)
        return end if before is None else max(before, end)
