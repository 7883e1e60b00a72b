"""Messages between a parent and its child."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import WorkerError
from penstock.shm import (
    FRAME_LIMIT,
    FrameReader,
    frame_pieces,
    recv_frame,
    recv_frame_fds,
    send_frame,
    send_frame_fds,
)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def stream(*frames: bytes) -> bytes:
    return b"".join(bytes(piece) for frame in frames for piece in frame_pieces([frame]))


def test_frames_arrive_whole_and_in_order(pair: Pair) -> None:
    """Also empty ones, and ones made of several pieces of any kind of buffer."""
    ours, theirs = pair
    send_frame(ours, b"one")
    send_frame(ours)
    send_frame(ours, b"a", memoryview(bytearray(b"b")), memoryview(struct.pack("<2I", 1, 2)).cast("I"))
    assert recv_frame(theirs) == b"one"
    assert recv_frame(theirs) == b""
    assert recv_frame(theirs) == b"ab" + struct.pack("<2I", 1, 2)


def test_a_frame_larger_than_the_socket_buffer_arrives(pair: Pair) -> None:
    """A batch of file contents is far larger than what a socket holds."""
    ours, theirs = pair
    payload = os.urandom(3 << 20)
    sender = threading.Thread(target=send_frame, args=(ours, payload[:10], payload[10:]))
    sender.start()
    try:
        assert recv_frame(theirs) == payload
    finally:
        sender.join()


def test_the_end_between_frames_is_none(pair: Pair) -> None:
    """A peer that closes properly has said all it had to say."""
    ours, theirs = pair
    send_frame(ours, b"last")
    ours.close()
    assert recv_frame(theirs) == b"last"
    assert recv_frame(theirs) is None
    assert recv_frame_fds(theirs) is None


def test_a_peer_that_died_with_unread_messages_has_ended(pair: Pair) -> None:
    """The kernel calls that a reset; for us it is the end like any other."""
    ours, theirs = pair
    send_frame(theirs, b"never read")
    ours.close()
    assert recv_frame(theirs) is None


@pytest.mark.parametrize("cut", [1, 7, 8, 9])
def test_the_end_inside_a_frame_is_an_error(pair: Pair, cut: int) -> None:
    """Half a message is not a message."""
    ours, theirs = pair
    ours.sendall(stream(b"ab")[:cut])
    ours.close()
    with pytest.raises(ConnectionError, match="in the middle"):
        recv_frame(theirs)


def test_what_is_not_a_frame_is_refused_before_memory_is_taken(pair: Pair) -> None:
    """A line of text printed into the socket would else be a length of exabytes."""
    ours, theirs = pair
    ours.sendall(b"Traceback (most recent call last)")
    with pytest.raises(WorkerError, match="limit"):
        recv_frame(theirs)
    with pytest.raises(WorkerError, match="limit"):
        FrameReader().feed(b"Traceback (most recent call last)")


def test_the_limit_is_exact(pair: Pair) -> None:
    """A frame of just the limit passes on both kinds of reader, one byte more does not."""
    ours, theirs = pair
    send_frame(ours, b"1234")
    assert recv_frame(theirs, limit=4) == b"1234"
    send_frame(ours, b"12345")
    with pytest.raises(WorkerError, match="5 bytes, the limit is 4"):
        recv_frame(theirs, limit=4)
    assert FrameReader(4).feed(stream(b"1234")) == [b"1234"]
    with pytest.raises(WorkerError):
        FrameReader(4).feed(stream(b"12345"))


def test_a_sender_hears_that_its_message_is_too_long() -> None:
    """Before anything is sent."""
    piece = memoryview(b"\0" * (1 << 20))
    with pytest.raises(ValueError, match="batch_size"):
        frame_pieces([piece] * (FRAME_LIMIT // len(piece) + 1))


def test_long_pieces_are_not_copied() -> None:
    """File contents go from where they are into the socket."""
    payload = bytes(1 << 20)
    assert any(piece is payload for piece in frame_pieces([b"head", payload]))


@given(frames=st.lists(st.binary(max_size=300), max_size=8), cuts=st.lists(st.integers(1, 64), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_the_reader_is_the_same_however_the_bytes_are_cut(frames: list[bytes], cuts: list[int]) -> None:
    """A stream has no borders; the reader finds them."""
    data, reader, got, turn = stream(*frames), FrameReader(), list[bytes](), 0
    while data:
        step = cuts[turn % len(cuts)]
        got += reader.feed(data[:step])
        data, turn = data[step:], turn + 1
    assert got == frames


def test_descriptors_come_with_their_frame(pair: Pair) -> None:
    """Each frame has its own, however many frames are waiting; the copies are not inherited by other programs."""
    ours, theirs = pair
    reads, writes = zip(*(os.pipe() for _ in range(3)), strict=True)
    send_frame_fds(ours, b"two", writes[:2])
    send_frame_fds(ours, b"none", [])
    send_frame_fds(ours, b"x" * (1 << 17), writes[2:])
    for fd in writes:
        os.close(fd)
    got = [recv_frame_fds(theirs) for _ in range(3)]
    frames, fds = zip(*[answer for answer in got if answer], strict=True)
    assert frames == (b"two", b"none", b"x" * (1 << 17))
    assert [len(each) for each in fds] == [2, 0, 1]
    for number, fd in enumerate(fd for each in fds for fd in each):
        assert not os.get_inheritable(fd)
        os.write(fd, b"!")
        os.close(fd)
        assert os.read(reads[number], 9) == b"!"
        os.close(reads[number])


def test_a_receiver_may_leave_as_soon_as_it_has_all(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent after the last byte, not even nothing."""
    ours, theirs = pair
    send_fds = socket.send_fds

    def send_and_leave(sock: socket.socket, buffers: list[bytes], fds: list[int]) -> int:
        sent = send_fds(sock, buffers, fds)
        theirs.close()
        return sent

    monkeypatch.setattr(socket, "send_fds", send_and_leave)
    send_frame_fds(ours, b"last", [0])


def test_no_descriptor_is_left_by_a_frame_that_fails(pair: Pair) -> None:
    """They are closed when the frame they came with cannot be read."""
    ours, theirs = pair
    read, write = os.pipe()
    send_frame_fds(ours, b"too long", [write])
    os.close(write)
    with pytest.raises(WorkerError):
        recv_frame_fds(theirs, limit=4)
    assert os.read(read, 1) == b"", "the other end of the pipe is still open somewhere"
    os.close(read)


def test_too_many_descriptors_are_refused(pair: Pair) -> None:
    """Rather than cut off by the kernel."""
    with pytest.raises(ValueError, match="64"):
        send_frame_fds(pair[0], b"", [0] * 65)
