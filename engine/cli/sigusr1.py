"""``SIGUSR1`` to the command: what its pipelines and threads do is printed on standard error, and it goes on."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress

from ...descriptors import is_open
from ..core.threads import daemon

_SIGNAL = signal.SIGUSR1


@contextmanager
def dumping() -> Generator[None]:
    """While the block runs, ``SIGUSR1`` prints `dump_process`. Outside of the main thread nothing is changed.

    A handler in Python runs in the main thread, between two of its instructions: never, while that thread is stuck in
    C. So the interpreter's own handler, which is C, only writes the signal's number into a pipe, and a thread reads it.
    That needs the interpreter's lock, which whoever is stuck may hold. So `faulthandler` comes first, which needs
    nothing: it prints the stack of the thread that got the signal, which is the main thread if it can be, and then lets
    Python have the signal. Not the stacks of all threads: it would read those while they change. In CPython 3.11 that
    crashed a busy process at the 951st signal (python/cpython#116008); of the thread itself, 25,000 were harmless.
    """
    if threading.current_thread() is not threading.main_thread() or not is_open(2):
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handled_before = signal.signal(_SIGNAL, lambda *_: None)
    signal.siginterrupt(_SIGNAL, False)  # no system call of anybody's fails because somebody was curious
    faulthandler.register(_SIGNAL, file=2, all_threads=False, chain=True)
    thread = daemon(lambda: _serve(reader), "penstock-dump")
    try:
        yield
    finally:
        faulthandler.unregister(_SIGNAL)
        signal.signal(_SIGNAL, handled_before)
        signal.set_wakeup_fd(woken_before)
        os.close(writer)  # the thread reads the end of it
        thread.join(1.0)


def _serve(reader: int) -> None:
    with open(reader, "rb", buffering=0) as numbers:
        while said := numbers.read(64):
            if _SIGNAL in said:
                _print()


def _dump() -> str:
    from ..observe.dump import dump_process  # the machine, which is not needed before somebody asks for it

    try:
        return dump_process()
    except Exception:  # noqa: BLE001  (of what changes meanwhile; the next signal must find somebody here)
        return f"no dump this time:\n{traceback.format_exc()}"


def _print() -> None:
    # Not print: the thread that is stuck may hold the buffer's lock.
    rest = f"{_dump()}\n".encode(errors="backslashreplace")
    with suppress(BrokenPipeError):  # nobody reads it
        while rest:
            rest = rest[os.write(2, rest) :]
