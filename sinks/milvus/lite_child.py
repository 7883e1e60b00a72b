"""The process that serves one Milvus Lite directory to the process that started it. Run as a script, never imported.

``python -P lite_child.py DIRECTORY`` answers with one JSON line, ``{"port": n}`` or ``{"error": ...,
"message": ...}``, and then waits. The byte ``q`` on its standard input: flush, close, leave. The end of its input, or
of its parent: leave at once. Nothing is lost then, every acknowledged row is in the write-ahead log; and the directory
is free at once, where a flush would hold it for the seconds that building an index takes.
"""

from __future__ import annotations

import gc
import json
import os
import select
import sys


def main(directory: str) -> int:
    parent = _watch_parent()
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    gc.disable()  # all that is imported stays: collections meanwhile find nothing, and take 0.1 s
    try:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        gc.freeze()
        gc.enable()
        # One worker thread: the engine of milvus-lite 3.2 is single-writer per collection and takes no lock on writes.
        # Measured with 4 clients: 17,400 rows/s with one, 14,700 with the default of ten.
        server, database, port = start_server_in_thread(directory, host="127.0.0.1", port=0, max_workers=1)
    except Exception as error:  # noqa: BLE001  (whatever it is, the parent must hear of it)
        answer.write(json.dumps({"error": type(error).__name__, "message": str(error)}) + "\n")
        answer.close()
        return 1
    answer.write(json.dumps({"port": port}) + "\n")
    answer.close()
    if not _asked_to_close(parent):
        os._exit(0)
    server.stop(2).wait()
    database.close()
    os._exit(0)  # all is on the disk; taking the interpreter apart would be 0.2 s that the other side waits for


def _watch_parent() -> int:
    # Not PR_SET_PDEATHSIG: that one fires when the *thread* that started us ends, and sinks are opened in thread pools.
    return os.pidfd_open(os.getppid())


def _asked_to_close(parent: int) -> bool:
    """Wait; True for the word to close, False when the parent is gone (a forked sibling may keep our input open)."""
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(parent, select.POLLIN)
    ready = {descriptor for descriptor, _ in poller.poll()}
    return 0 in ready and os.read(0, 1) == b"q"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
