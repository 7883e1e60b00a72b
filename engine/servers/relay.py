"""Passes connections on to a port in the network that this process is in. Run as a script, never imported.

``python -I -S relay.py PORT FD``: whatever connects to the listening socket FD, which may belong to another network
namespace, is joined to 127.0.0.1:PORT. Connections are refused, as far as one that was accepted can be, while nobody
listens there.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from contextlib import suppress

_CHUNK = 1 << 18


def main(port: int, listener: socket.socket) -> None:
    """Serve for ever: the guardian ends this process."""
    while True:
        outer, _ = listener.accept()
        threading.Thread(target=_join, args=(outer, port), daemon=True).start()


def _join(outer: socket.socket, port: int) -> None:
    try:
        inner = socket.create_connection(("127.0.0.1", port))
    except OSError:
        # Closing without lingering answers with a reset, the nearest to a refused connection.
        outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        outer.close()
        return
    with outer, inner:
        for end in (outer, inner):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_pump, args=(inner, outer), daemon=True)
        back.start()
        _pump(outer, inner)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    buffer = memoryview(bytearray(_CHUNK))
    try:
        while count := source.recv_into(buffer):
            target.sendall(buffer[:count])
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side has broken: the other must not wait for ever.
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
