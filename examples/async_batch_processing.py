"""The same pictures inserted three ways, each into a fresh store, with what each way reached.

    python examples/async_batch_processing.py [FOLDER] [--repeat 20]

The stages of ``insert_images`` run in turn, those of ``insert_images_async`` overlap in threads, and
``insert_images_streaming`` uses worker processes and shared memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import penstock

PHOTOS = Path(__file__).parent / "photos"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", type=Path, default=PHOTOS, help="folder of JPEG files")
    parser.add_argument("--repeat", type=int, default=20, help="how often to take the folder")
    options = parser.parse_args()
    paths = sorted(options.images.rglob("*.jpg")) * options.repeat
    ids = [f"{number:06}" for number in range(len(paths))]

    seconds: dict[str, float] = {}
    for name in ("insert_images", "insert_images_async", "insert_images_streaming"):
        with (
            tempfile.TemporaryDirectory() as folder,
            penstock.ImageEmbeddingPipeline(to=f"{folder}/photos.db") as pipeline,
        ):
            insert = getattr(pipeline, name)
            insert(paths[:32], ids=ids[:32])  # workers and compilation are paid for once in a service's life
            begin = time.perf_counter()
            assert insert(inputs=paths, ids=ids) == ids
            seconds[name] = time.perf_counter() - begin
    slowest = seconds["insert_images"]
    for name, took in seconds.items():
        print(f"{name:24} {took:6.1f} s  {len(paths) / took:7.1f} pictures/s  {slowest / took:5.2f}x")


if __name__ == "__main__":
    main()
