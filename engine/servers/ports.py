"""Free ports on the loopback for servers that want to be told theirs."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below what Linux gives to outgoing connections (32768...): a port of a server that is being restarted stays free.
_RANGE = range(12_000, 32_000)


def free_ports(count: int) -> list[int]:
    """This many ports that nobody listens on now. Somebody may in a moment: be ready to ask again."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            candidate = random.choice(_RANGE)  # noqa: S311  (to be unlikely the same as another process' choice)
            listener = stack.enter_context(socket.socket())
            if _binds(listener, candidate):
                found.append(candidate)
        return found


def is_free(port: int) -> bool:
    """Whether nobody listens on it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are no obstacle
        return _binds(listener, port)


def listens(pid: int, port: int) -> bool:
    """Whether this process listens on it."""
    import psutil

    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets)


def _binds(listener: socket.socket, port: int) -> bool:
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
