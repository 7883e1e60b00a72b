"""What tests of child processes share: entry points of such processes, and talking to them."""

from __future__ import annotations

from penstock.shm import Child, recv_frame, send_frame

ENTRIES = """
import ctypes, json, os, signal, sys
from penstock.shm import Ring, SlotLayout, recv_frame, recv_frame_fds, send_frame

def echo(sock, argument, fds):
    while (frame := recv_frame(sock)) is not None:
        send_frame(sock, argument + frame)

def look(sock, argument, fds):
    send_frame(sock, json.dumps({
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)),
        "own": sorted([sock.fileno(), *fds]),
        "stdin": os.readlink("/proc/self/fd/0"),
        "sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "sigterm": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "path": sys.path,
        "modules": [name for name in ("numpy", "wave", "penstock.shm") if name in sys.modules],
        "color": os.environ.get("SHM_TEST_COLOR"),
        "session": os.getsid(0),
    }).encode())

def write(sock, argument, fds):
    os.write(fds[0], argument)

def fill(sock, argument, fds):
    layout = SlotLayout.from_json(json.loads(argument))
    frame, got = recv_frame_fds(sock)
    ring = Ring.attach(got[0], layout, int(frame))
    ring.begin(0, 1)
    ring.view(0)["pixels"][...] = 7
    ring.commit(0, 1, layout.rows)
    send_frame(sock, b"done")

def push(sock, argument, fds):
    while True:
        send_frame(sock, bytes(1 << 16))

def stay(sock, argument, fds):
    send_frame(sock, b"here")
    signal.pause()

def die(sock, argument, fds):
    {
        "return": lambda: None,
        "raise": lambda: [][1],
        "exit 0": lambda: sys.exit(),
        "exit 3": lambda: sys.exit(3),
        "exit text": lambda: sys.exit("no more"),
        "_exit": lambda: os._exit(7),
        "segfault": lambda: ctypes.string_at(0),
        "abort": lambda: os.abort(),
        "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "memory": lambda: bytearray(1 << 60),
        "system error": lambda: sys.exit(signal),
    }[argument.decode()]()
"""


def say(child: Child, message: bytes = b"") -> bytes | None:
    child.socket.settimeout(10)
    send_frame(child.socket, message)
    return recv_frame(child.socket)


def hear(child: Child) -> bytes:
    child.socket.settimeout(10)
    frame = recv_frame(child.socket)
    assert frame is not None
    return frame
