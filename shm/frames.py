"""Messages over a stream socket between a parent and its child: an 8-byte length, then so many bytes.

What a frame says is the business of those who talk; it is never pickled.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence

from ..errors import WorkerError

FRAME_LIMIT = 1 << 30
"""The longest frame, in bytes. A longer one is a mistake or not a frame at all (somebody printed into the socket)."""

FDS_LIMIT = 64
"""Most file descriptors with one frame (the kernel takes up to 253)."""

_LENGTH = struct.Struct("<Q")
_JOIN = 1 << 16  # shorter frames are copied together: one system call instead of many
_CHUNK = 1 << 24

Buffer = bytes | memoryview


def frame_pieces(pieces: Sequence[Buffer]) -> list[Buffer]:
    """The bytes of one frame, to be sent one after the other. Long ones are not copied.

    Raises:
        ValueError: it is longer than a frame may be.
    """
    length = sum(memoryview(piece).nbytes for piece in pieces)
    if length > FRAME_LIMIT:
        raise ValueError(
            f"a message of {length:,} bytes is over the limit of {FRAME_LIMIT:,}: use a smaller batch_size"
        )
    if length <= _JOIN:
        return [b"".join((_LENGTH.pack(length), *pieces))]
    return [_LENGTH.pack(length), *pieces]


def send_frame(sock: socket.socket, *pieces: Buffer) -> None:
    """Send one frame, made of the pieces in order. Blocks until it is in the socket's buffer.

    Raises:
        OSError: the other end is gone.
        ValueError: it is longer than a frame may be.
    """
    for piece in frame_pieces(pieces):
        sock.sendall(piece)


def recv_frame(sock: socket.socket, limit: int = FRAME_LIMIT) -> bytes | None:
    """Wait for one frame. None when the other end has closed.

    Raises:
        ConnectionError: the other end closed in the middle of a frame.
        TimeoutError: the socket has a timeout, and it is over.
        WorkerError: what comes is longer than ``limit``.
    """
    head = _recv(sock, _LENGTH.size)
    return _body(sock, head, limit) if head else None


def send_frame_fds(sock: socket.socket, frame: Buffer, fds: Sequence[int]) -> None:
    """Send one frame together with file descriptors; the receiver gets copies of its own. Use with `recv_frame_fds`.

    Raises:
        OSError: the other end is gone.
        ValueError: too many descriptors, or the frame is too long.
    """
    if len(fds) > FDS_LIMIT:
        raise ValueError(f"at most {FDS_LIMIT} file descriptors go with one frame, not {len(fds)}")
    first, *rest = frame_pieces([frame])
    # The descriptors travel with the first bytes, so a receiver has them no later than the length.
    sent = socket.send_fds(sock, [first], list(fds)) if fds else 0
    for piece in (memoryview(first)[sent:], *rest):
        if len(piece):  # sending nothing is an error once the receiver has read it all and left
            sock.sendall(piece)


def recv_frame_fds(sock: socket.socket, limit: int = FRAME_LIMIT) -> tuple[bytes, list[int]] | None:
    """Wait for one frame and the file descriptors that come with it, which are then the caller's. None at the end.

    Frames that carry descriptors must be received with this: `recv_frame` lets the kernel drop them.

    Raises:
        ConnectionError: the other end closed in the middle of a frame.
        WorkerError: what comes is longer than ``limit``.
    """
    room = socket.CMSG_SPACE(FDS_LIMIT * array.array("i").itemsize)
    try:
        # Not socket.recv_fds: it leaves the descriptors inheritable by whatever another thread executes now.
        head, ancillary, _, _ = sock.recvmsg(_LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    if not head:
        return None
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        if len(head) < _LENGTH.size:
            head += _rest(sock, _LENGTH.size - len(head))
        return _body(sock, head, limit), list(fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


class FrameReader:
    """Frames out of bytes as they arrive, for a side that must not block.

    Args:
        limit: longest frame in bytes.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: Buffer) -> list[bytes]:
        """Take what has arrived; the frames that are complete now, in order.

        Raises:
            WorkerError: what comes is longer than the limit.
        """
        self._data += data
        frames: list[bytes] = []
        begin = 0
        while len(self._data) - begin >= _LENGTH.size:
            end = begin + _LENGTH.size + _length(self._data, begin, self._limit)
            if end > len(self._data):
                break
            frames.append(bytes(memoryview(self._data)[begin + _LENGTH.size : end]))
            begin = end
        del self._data[:begin]
        return frames


def _length(data: Buffer | bytearray, offset: int, limit: int) -> int:
    length: int = _LENGTH.unpack_from(data, offset)[0]
    if length > limit:
        raise WorkerError(
            f"a message claims {length:,} bytes, the limit is {limit:,}: did something print to the socket?"
        )
    return length


def _body(sock: socket.socket, head: bytes, limit: int) -> bytes:
    length = _length(head, 0, limit)
    return _rest(sock, length) if length else b""


def _rest(sock: socket.socket, nbytes: int) -> bytes:
    data = _recv(sock, nbytes)
    if data is None:
        raise ConnectionResetError("the other end closed in the middle of a frame")
    return data


def _recv(sock: socket.socket, nbytes: int) -> bytes | None:
    """Exactly so many bytes; None if the end comes before the first."""
    chunks: list[bytes] = []
    missing = nbytes
    while missing:
        try:
            chunk = sock.recv(min(missing, _CHUNK), socket.MSG_WAITALL)
        except (
            ConnectionResetError
        ):  # a Unix socket's peer died with messages of ours unread: it is an end all the same
            chunk = b""
        if not chunk:
            break
        chunks.append(chunk)
        missing -= len(chunk)
    if missing and chunks:
        raise ConnectionResetError("the other end closed in the middle of a frame")
    return b"".join(chunks) if not missing else None
