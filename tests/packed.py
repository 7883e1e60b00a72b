"""What tests of tars and tables share: pictures in them, and jobs over them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import penstock
from penstock import Report
from penstock.sinks import row_key
from penstock.tests.drawn import encoded
from penstock.tests.whole_jobs import digest_of

SMALL: dict[str, Any] = {"batch_size": 8, "insert_batch_size": 16, "workers": 2, "progress": "none"}
FLAGS = ["--batch-size", "8", "--insert-batch-size", "16", "--workers", "2", "--progress", "none"]


def picture(seed: int) -> bytes:
    """The file of a small picture of noise, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of these members, in this order."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def run(source: str | list[str], folder: Path, **settings: Any) -> Report:
    """The job in ``folder``, in this process."""
    folder.mkdir(exist_ok=True)
    own: dict[str, Any] = {"to": str(folder / "rows.db"), "job": folder / "job"}
    return penstock.embed_images(source, **own | SMALL | settings)


def digests(folder: Path, keys: Sequence[str]) -> Mapping[str, str]:
    """Of the vectors in a job's store, by the keys of the pictures that are there."""
    found = digest_of(folder, [row_key(key) for key in keys])
    return {key: found[row_key(key)] for key in keys if row_key(key) in found}
