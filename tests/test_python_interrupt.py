"""Ctrl-C in a program that uses the Python API comes at once, whatever the store does, and all goes on afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.tests.waiting import DEADLINE

pytestmark = pytest.mark.slow

# The store is there and takes the first rows for ever, or as good as: who waits for it is told by the order of lines.
PROGRAM = f"""
import sys, threading
import numpy as np
from penstock import ImageEmbeddingPipeline, embed_images
from penstock.sinks import ParquetBulkSink

write, blocked = ParquetBulkSink.write, threading.Event()

def blocking(self, rows):
    print("writing", flush=True)
    blocked.wait({DEADLINE / 2})
    print("written", flush=True)
    return write(self, rows)

way, to = sys.argv[1:]
inputs = [np.full((40, 40, 3), number, np.uint8) for number in range(4)]
settings = {{"to": to, "workers": 1, "batch_size": 4, "embedder": "gist:32"}}
ParquetBulkSink.write = blocking
if way == "embed_images":
    try:
        embed_images(inputs, **settings)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    sys.exit()
with ImageEmbeddingPipeline(**settings) as pipeline:
    try:
        getattr(pipeline, way)(inputs)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    ParquetBulkSink.write = write
    print(getattr(pipeline, way)(inputs, ids=range(4)), flush=True)
"""


@pytest.mark.parametrize("way", ["insert_images", "insert_images_async", "insert_images_streaming", "embed_images"])
def test_ctrl_c_does_not_wait_for_a_write_that_blocks(tmp_path: Path, way: str) -> None:
    """Neither the call nor the interpreter's exit waits for it; and the pipeline takes the same pictures again."""
    command = [sys.executable, "-c", PROGRAM, way, f"bulk:{tmp_path / 'rows'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read().splitlines()
    assert rest == ["interrupted", *([] if way == "embed_images" else ["[0, 1, 2, 3]"])]
    assert child.returncode == 0
