"""What decoding takes of memory, at most: the figure that the ceiling of a job rests on, for every kind of picture."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from penstock.preprocess import PreprocessSpec
from penstock.preprocess.worker.memory import decode_bytes
from penstock.tests.waiting import DEADLINE

SIDE = 2304
PEAK = """
import io, json, sys
from penstock.preprocess.kernel.canvas import make_canvas
from penstock.preprocess.decode.decode import decode_into
from penstock.preprocess.worker.jax_runtime import _keep_memory
from penstock.preprocess.spec import PreprocessSpec
from PIL import Image

def most(name):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name))

_keep_memory()
spec = PreprocessSpec()
canvas = make_canvas(spec, 1)
small = io.BytesIO()
Image.new("RGBA", (64, 64)).save(small, "PNG")
decode_into(small.getvalue(), spec, canvas[0])
data = open(sys.argv[1], "rb").read()
before = most("VmRSS")
decode_into(data, spec, canvas[0])
print(most("VmHWM") - before)
"""


def noise(channels: int) -> NDArray[np.uint8]:
    small = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, channels), np.uint8)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))


def picture(kind: str) -> bytes:
    """A picture of each kind that decoders treat in a way of their own."""
    file = io.BytesIO()
    rgba, grey = Image.fromarray(noise(4)), noise(1)[:, :, 0]
    rgb = rgba.convert("RGB")
    match kind:
        case "progressive CMYK JPEG":
            rgb.convert("CMYK").save(file, "JPEG", progressive=True, subsampling=0)
        case "JPEG of sixteen times the pixels, reduced on the way":
            rgb.resize((4 * SIDE, 4 * SIDE), Image.Resampling.NEAREST).save(file, "JPEG")
        case "JPEG":
            rgb.save(file, "JPEG")
        case "RGBA PNG":
            rgba.save(file, "PNG", compress_level=1)
        case "palette PNG":
            rgb.quantize(64).save(file, "PNG", transparency=3, compress_level=1)
        case "16-bit PNG":
            Image.fromarray(grey.astype(np.uint16) * 257).save(file, "PNG", compress_level=1)
        case "lossless WebP":
            rgba.save(file, "WEBP", lossless=True, method=0, quality=0)
        case "WebP":
            rgb.save(file, "WEBP", method=0)
        case "float TIFF":
            Image.fromarray(grey.astype(np.float32) / 255).save(file, "TIFF", compression="tiff_deflate")
        case "int TIFF":
            Image.fromarray(grey.astype(np.int32)).save(file, "TIFF")
        case "TIFF of one strip":
            rgba.save(file, "TIFF", compression="tiff_deflate", strip_size=2**31 - 1)
        case "GIF":
            rgb.quantize(64).save(file, "GIF", transparency=3)
        case _:
            rgb.save(file, "BMP")
    return file.getvalue()


KINDS = (
    *("progressive CMYK JPEG", "JPEG", "RGBA PNG", "palette PNG", "16-bit PNG", "lossless WebP", "WebP", "float TIFF"),
    *("int TIFF", "TIFF of one strip", "GIF", "BMP", "JPEG of sixteen times the pixels, reduced on the way"),
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_takes_no_more_than_is_counted(tmp_path: Path, kind: str) -> None:
    """Its peak in a process of its own, for a picture of the most pixels that are allowed."""
    file = tmp_path / "picture"
    file.write_bytes(picture(kind))
    done = subprocess.run([sys.executable, "-c", PEAK, str(file)], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) <= decode_bytes(PreprocessSpec(max_pixels=SIDE * SIDE))


COUNT = 8
CUT = """
import io, sys
from PIL import Image
from penstock.engine.embedders import parse_embedder
from penstock.engine.jobs.common.in_process import LocalPreprocessor
from penstock.errors import TruncatedError
from penstock.engine.workers import PreprocessPool
from penstock.preprocess import preset

def most(pid, name):
    return next(int(line.split()[1]) << 10 for line in open(f"/proc/{pid}/status") if line.startswith(name))

def check(process, pid, data, count):
    small = io.BytesIO()
    Image.new("RGB", (64, 64)).save(small, "PNG")
    process([small.getvalue()]).release()
    before = most(pid, "VmRSS")
    failures = process([data] * count).failures
    assert [type(error) for _, error in failures] == [TruncatedError] * count
    print(most(pid, "VmHWM") - before)

where, data, count = sys.argv[1], open(sys.argv[2], "rb").read(), int(sys.argv[3])
spec = preset("imagenet", size=32)
if where == "a worker":
    with PreprocessPool(spec, workers=1, batch_size=count) as pool:
        pool.start_in_hub()
        check(pool.process, pool.pids[0], data, count)
        pool.stop_in_hub()
else:
    embedder = parse_embedder("gist:32")
    embedder.open(spec, count)
    check(LocalPreprocessor(spec, count, embedder).process, "self", data, count)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["a worker", "this process"])
def test_pictures_that_fail_are_let_go_of(where: str, tmp_path: Path) -> None:
    """An error is kept until its batch is done; the picture and the file that it met are not."""
    whole = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(whole, "PNG")
    path = tmp_path / "cut.png"
    path.write_bytes(whole.getvalue()[:-100])
    command = [sys.executable, "-c", CUT, where, str(path), str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3 * 4000 * 4000 * 4
